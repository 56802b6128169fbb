/* flows: packets of several flows as they come in mixed up, with everything that happens to flows.
 *
 * Owns eight flows and what may happen to the next packet of each. Which flow and what happens is chosen by a source of
 * choices: random numbers in a test, an input's bytes in a fuzzer. It must not know what becomes of the packets.
 */
#ifndef FLOWS_H
#define FLOWS_H

#include "super.h"

/* Choices: bytes while there are any and nothing but zeros after, or random ones when there never were. */
struct choices {
	const uint8_t *at, *end;
	bool random;
};

static inline uint32_t choose(struct choices *c, uint32_t limit)
{
	uint32_t value = 0;

	if (c->random)
		return random_below(limit);
	for (uint32_t reach = 1; reach < limit && c->at < c->end; reach <<= 8)
		value = value << 8 | *c->at++;
	return value % limit;
}

static inline bool chosen_all(const struct choices *c)
{
	return !c->random && c->at >= c->end;
}

#define FLOWS 8
#define FLOWS_STREAM 65536

struct flows {
	struct shape flow[FLOWS];
	uint8_t stream[FLOWS_STREAM + 2000]; /* payload; filled once */
};

/* What may happen; a flow goes on as it was with half of all choices anyhow. */
enum happening {
	HAPPENS_NOTHING,
	HAPPENS_PUSH, HAPPENS_SHORT, HAPPENS_SIZE, HAPPENS_GAP, HAPPENS_AGAIN, HAPPENS_WINDOW, HAPPENS_ACKNOWLEDGED,
	HAPPENS_NO_DATA, HAPPENS_FLAG, HAPPENS_ECHO, HAPPENS_TOS, HAPPENS_TTL, HAPPENS_DF, HAPPENS_ID, HAPPENS_LABEL,
	HAPPENS_OPTIONS, HAPPENS_IP_OPTIONS, HAPPENS_FRAGMENT, HAPPENS_DAMAGE, HAPPENS_NO_CHECKSUM, HAPPENS_STRANGER,
	HAPPENS_CUT_OFF, HAPPENS_PARTIAL, HAPPENINGS,
};

/* Four kinds of flow, two of each between the same addresses. */
static inline void flows_begin(struct flows *f)
{
	if (!f->stream[1])
		for (size_t i = 0; i < sizeof(f->stream); i++)
			f->stream[i] = (uint8_t)(i * 0x9d + (i >> 8));
	for (int i = 0; i < FLOWS; i++) {
		struct shape *s = &f->flow[i];

		*s = i & 2 ? plain_udp(i & 1 ? 6 : 4) : plain_tcp(i & 1 ? 6 : 4);
		s->source_port = (uint16_t)(s->source_port + i / 4);
		s->payload_bytes = 40;
		s->sequence = 0xfffffe00U;
		s->id = 0xffe0;
	}
}

/* Changes `now`, the packet to be made, or for good `s`, its flow. */
static inline void flows_happen(struct choices *c, enum happening what, struct shape *s, struct shape *now)
{
	static const uint16_t sizes[] = {1, 2, 7, 40, 41, 600, 1400, 1432};

	switch (what) {
	case HAPPENS_PUSH: now->flags |= PSH; break;
	case HAPPENS_SHORT: now->payload_bytes = choose(c, (uint32_t)s->payload_bytes) + 1; break;
	case HAPPENS_SIZE: now->payload_bytes = s->payload_bytes = sizes[choose(c, COUNT(sizes))]; break;
	case HAPPENS_GAP: now->sequence = s->sequence += choose(c, 3000) - 1500; break;
	case HAPPENS_AGAIN: now->sequence -= (uint32_t)now->payload_bytes; break;
	case HAPPENS_WINDOW: now->window = s->window ^= (uint16_t)(1 << choose(c, 16)); break;
	case HAPPENS_ACKNOWLEDGED: now->acknowledged = s->acknowledged += choose(c, 2000); break;
	case HAPPENS_NO_DATA: now->payload_bytes = 0; break;
	case HAPPENS_FLAG: now->flags ^= (uint8_t)(1 << choose(c, 8)); break;
	case HAPPENS_ECHO: now->flags = s->flags ^= ECE; break;
	case HAPPENS_TOS: now->tos = s->tos ^= (uint8_t)(1 << choose(c, 8)); break;
	case HAPPENS_TTL: now->ttl = s->ttl ^= (uint8_t)(1 << choose(c, 8)); break;
	case HAPPENS_DF: now->fragment = s->fragment ^= DF; break;
	case HAPPENS_ID: now->id = s->id = (uint16_t)(s->id + choose(c, 65536)); break;
	case HAPPENS_LABEL: now->flow_label = s->flow_label ^= 1U << choose(c, 20); break;
	case HAPPENS_OPTIONS:
		s->tcp_option_bytes = now->tcp_option_bytes = 4 * choose(c, 11);
		s->tcp_options[0] = now->tcp_options[0] = (uint8_t)choose(c, 256);
		break;
	case HAPPENS_IP_OPTIONS:
		now->ip_option_bytes = 8;
		now->ip_options[0] = now->version == 6 ? now->protocol : 1;
		break;
	case HAPPENS_FRAGMENT: now->fragment = (uint16_t)choose(c, 65536); break;
	default: break;
	}
}

/* Changes the bytes of a packet that is made. Returns its length. */
static inline size_t flows_damage(struct choices *c, enum happening what, const struct shape *now, uint8_t *out, size_t len)
{
	size_t start = ip_bytes(now);
	uint32_t bit;

	switch (what) {
	case HAPPENS_DAMAGE:
		bit = choose(c, (uint32_t)len * 8);
		out[bit / 8] ^= (uint8_t)(1 << bit % 8);
		break;
	case HAPPENS_NO_CHECKSUM:
		put_16(out + start + field_of(now->protocol), 0);
		break;
	case HAPPENS_PARTIAL: /* left to a card */
		put_16(out + start + field_of(now->protocol), pseudo_sum(out, len, start, now->protocol));
		return len;
	case HAPPENS_STRANGER:
		out[now->version == 4 ? 9 : 6] = (uint8_t[]){1, 58, 50, 44, 0, 253}[choose(c, 6)];
		break;
	case HAPPENS_CUT_OFF:
		len = start + choose(c, (uint32_t)(len - start) + 1);
		put_16(out + (now->version == 4 ? 2 : 4), (uint32_t)(now->version == 4 ? len : len - 40));
		break;
	default:
		return len;
	}
	if (now->version == 4 && what != HAPPENS_DAMAGE)
		seal(out);
	return len;
}

/* The next packet of any flow, into `out` of SUPER_ROOM. It may well be none any more. Returns its length. */
static inline size_t flows_next(struct flows *f, struct choices *c, uint8_t *out)
{
	struct shape *s = &f->flow[choose(c, FLOWS)];
	enum happening what = (enum happening)choose(c, HAPPENINGS * 2);
	struct shape now = *s;

	if (what >= HAPPENINGS) /* mostly, nothing does */
		what = HAPPENS_NOTHING;
	flows_happen(c, what, s, &now);
	now.payload = f->stream + (now.sequence ^ now.id) % FLOWS_STREAM;
	s->sequence = now.sequence + (uint32_t)now.payload_bytes;
	s->id++;
	return flows_damage(c, what, &now, out, shape_make(&now, out));
}

#endif
