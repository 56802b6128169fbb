/* coalesce: see coalesce.h.
 *
 * Theory of operation. The rules are those of linux/net/ipv4/tcp_offload.c and udp_offload.c. A packet is a *candidate*
 * when it is TCP with payload and no flags but ACK, PSH and ECE, or UDP with payload and a checksum; and when it is no
 * fragment and has no IPv4 options or IPv6 extensions. A candidate joins the open group of its flow when all header fields
 * that segmentation copies are equal, and what it counts up follows on: TCP's sequence number, and without DF the IPv4 id.
 * A segment shorter than the others, or with PSH, closes the group.
 *
 * Checksums: a merged packet is handed over with a checksum the kernel completes, so a wrong one must never get in. Both
 * sides of a first join are verified then, and each that joins later; one that was never finished (unfinished.h) is good
 * enough. What stays alone leaves as it came: packet sockets see the checksum that was sent, and only its receiver
 * verifies it.
 *
 * Order: groups are written in the order of their first packets, so a flow is in order as long as only its last group
 * is open. Every packet of a flow that does not join closes the open group; a fragment, whose ports nobody knows, closes
 * those of all flows between its two addresses.
 */
#include "coalesce.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <string.h>

#include "bytes.h"
#include "checksum.h"

#define TCP_PSH 0x08
#define TCP_ACK 0x10
#define TCP_ECE 0x40
#define TCP_BYTES 20
#define UDP_BYTES 8
#define IP4_BYTES 20
#define IP6_BYTES 40

/* A packet seen as a segment of a flow. */
struct candidate {
	uint16_t transport, headers_bytes, payload_bytes;
	uint8_t protocol; /* 0: it has no ports that can be trusted */
	bool mergeable;
	uint32_t hash;
};

void coalesce_reset(struct coalesce *c)
{
	c->packets = 0;
	c->groups = 0;
	c->latest = COALESCE_NONE;
	memset(c->bucket, 0xff, sizeof(c->bucket));
}

static uint32_t flow_hash(const struct packet *p, uint16_t transport)
{
	uint64_t hash = load32(p->bytes + transport); /* both ports */
	size_t bytes = p->version == 4 ? 8 : 32;

	for (size_t i = 0; i < bytes; i += 4)
		hash = (hash ^ load32(p->source + i)) * 0x9e3779b97f4a7c15ULL;
	return (uint32_t)(hash >> 56) % COALESCE_BUCKETS;
}

static bool tcp_is_mergeable(const struct packet *p, struct candidate *it)
{
	const uint8_t *tcp = p->bytes + it->transport;
	uint32_t headers;

	if (p->length < it->transport + (uint32_t)TCP_BYTES)
		return false;
	headers = it->transport + (uint32_t)(tcp[12] >> 4) * 4;
	it->headers_bytes = (uint16_t)headers;
	if (headers < it->transport + (uint32_t)TCP_BYTES || headers >= p->length)
		return false;
	it->payload_bytes = (uint16_t)(p->length - headers);
	return (tcp[13] & ~(TCP_PSH | TCP_ECE)) == TCP_ACK;
}

static bool udp_is_mergeable(const struct packet *p, struct candidate *it)
{
	const uint8_t *udp = p->bytes + it->transport;

	it->headers_bytes = it->transport + UDP_BYTES;
	if (p->length <= it->headers_bytes || ntohs(load16(udp + 4)) != p->length - it->transport)
		return false;
	it->payload_bytes = (uint16_t)(p->length - it->headers_bytes);
	return load16(udp + 6) != 0;
}

static uint32_t kind_of(uint8_t protocol)
{
	return protocol == IPPROTO_TCP ? COALESCE_TCP : COALESCE_UDP;
}

static struct candidate classify(const struct coalesce *c, const struct packet *p, uint16_t told)
{
	struct candidate it = { .transport = p->header_bytes };
	bool mergeable;

	if (packet_is_fragment(p))
		return it;
	if ((p->protocol != IPPROTO_TCP && p->protocol != IPPROTO_UDP) || p->length < it.transport + (uint32_t)UDP_BYTES)
		return it;
	it.protocol = p->protocol;
	if (!(c->kinds & kind_of(p->protocol))) /* none of its flow is ever joined, so nothing has to be found for it */
		return it;
	it.hash = flow_hash(p, it.transport);
	mergeable = p->protocol == IPPROTO_TCP ? tcp_is_mergeable(p, &it) : udp_is_mergeable(p, &it);
	it.mergeable = mergeable && !told && (p->version == 6 || p->header_bytes == IP4_BYTES) && p->length <= COALESCE_BYTES;
	return it;
}

static bool same_addresses(const struct coalesce_group *g, const struct packet *p)
{
	size_t offset = p->version == 4 ? 12 : 8, bytes = p->version == 4 ? 8 : 32;

	return g->version == p->version && memcmp(g->head + offset, p->source, bytes) == 0;
}

static bool same_flow(const struct coalesce_group *g, const struct packet *p, const struct candidate *it)
{
	return g->protocol == it->protocol && same_addresses(g, p) &&
	       load32(g->head + g->transport) == load32(p->bytes + it->transport);
}

/* The open group of a packet's flow, or COALESCE_NONE. A flow's youngest group is met first, and no older one is open: a
 * flow that closes its groups one after the other does not search them all for each packet. */
static uint16_t find(const struct coalesce *c, const struct packet *p, const struct candidate *it)
{
	uint16_t i = c->latest;

	if (i == COALESCE_NONE || !same_flow(&c->group[i], p, it))
		for (i = c->bucket[it->hash]; i != COALESCE_NONE; i = c->group[i].next_in_bucket)
			if (same_flow(&c->group[i], p, it))
				break;
	return i != COALESCE_NONE && !c->group[i].closed ? i : COALESCE_NONE;
}

/* Whether the IP headers are such that segmenting the merged packet gives this one's back. */
static bool ip_follows(const struct coalesce_group *g, const struct packet *p)
{
	const uint8_t *a = g->head, *b = p->bytes;

	if (p->version == 6) /* version, class, flow label; next header and hop limit */
		return load32(a) == load32(b) && load16(a + 6) == load16(b + 6);
	if (load16(a) != load16(b) || load16(a + 6) != load16(b + 6) || load16(a + 8) != load16(b + 8))
		return false;
	return p->dont_fragment || (uint16_t)(ntohs(load16(a + 4)) + g->segments) == ntohs(load16(b + 4));
}

static bool tcp_follows(const struct coalesce_group *g, const uint8_t *tcp)
{
	const uint8_t *head = g->head + g->transport;
	size_t options = (size_t)(g->headers_bytes - g->transport) - TCP_BYTES;

	return ntohl(load32(tcp + 4)) == g->next_sequence && load32(head + 8) == load32(tcp + 8) &&
	       head[12] == tcp[12] && ((head[13] ^ tcp[13]) & ~TCP_PSH) == 0 && load16(head + 14) == load16(tcp + 14) &&
	       load16(head + 18) == load16(tcp + 18) && memcmp(head + TCP_BYTES, tcp + TCP_BYTES, options) == 0;
}

static bool follows(const struct coalesce_group *g, const struct packet *p, const struct candidate *it)
{
	return it->headers_bytes == g->headers_bytes && it->payload_bytes <= g->payload_bytes &&
	       g->segments < COALESCE_SEGMENTS && g->length + it->payload_bytes <= COALESCE_BYTES && ip_follows(g, p) &&
	       (it->protocol == IPPROTO_UDP || tcp_follows(g, p->bytes + it->transport));
}

/* Verifies a packet that is to be in a group of several. What its sender left unfinished is as good as right, but not what
 * it left uncut, too: of that, nobody knows how long its segments are. */
static bool is_sound(const struct coalesce *c, struct coalesce_group *g, const struct transport *t)
{
	enum transport_checksum checksum = transport_checksum(t);

	if (checksum == CHECKSUM_PARTIAL && t->bytes > c->mtu)
		return false;
	g->unfinished += checksum == CHECKSUM_PARTIAL;
	return checksum != CHECKSUM_WRONG;
}

/* Verifies a group's first packet when somebody wants to join it. */
static bool head_is_sound(const struct coalesce *c, struct coalesce_group *g)
{
	const struct transport head = { g->head, g->head_bytes, g->transport, g->protocol };

	if (!g->is_sound)
		g->is_sound = is_sound(c, g, &head);
	return g->is_sound;
}

/* The same for the packet that wants to; with a wrong checksum it stays alone. */
static bool joiner_is_sound(const struct coalesce *c, struct coalesce_group *g, const struct packet *p, struct candidate *it)
{
	const struct transport t = { p->bytes, p->length, it->transport, it->protocol };

	it->mergeable = is_sound(c, g, &t);
	return it->mergeable;
}

/* Takes note of the packet that the group now ends with. */
static void extend(struct coalesce_group *g, const struct packet *p, const struct candidate *it)
{
	g->segments++;
	g->closed = it->payload_bytes < g->payload_bytes;
	if (it->protocol != IPPROTO_TCP)
		return;
	g->next_sequence += it->payload_bytes;
	g->flags |= p->bytes[it->transport + 13] & TCP_PSH;
	g->closed |= g->flags != 0;
}

static struct coalesce_group *open_group(struct coalesce *c, const struct packet *p, const struct candidate *it,
					 uint16_t index)
{
	uint16_t number = c->groups++;
	struct coalesce_group *g = &c->group[number];

	*g = (struct coalesce_group){
		.head = p->bytes,
		.head_bytes = p->length,
		.length = p->length,
		.headers_bytes = it->headers_bytes,
		.transport = it->transport,
		.segments = 1,
		.first = index,
		.last = index,
		.version = p->version,
		.protocol = it->protocol,
		.closed = true,
	};
	if (!it->mergeable)
		return g;
	g->payload_bytes = it->payload_bytes;
	g->segments = 0;
	if (it->protocol == IPPROTO_TCP)
		g->next_sequence = ntohl(load32(p->bytes + it->transport + 4));
	extend(g, p, it);
	g->next_in_bucket = c->bucket[it->hash];
	c->bucket[it->hash] = number;
	c->latest = number;
	return g;
}

static void close_between(struct coalesce *c, const struct packet *p)
{
	for (uint16_t i = 0; i < c->groups; i++) {
		if (!c->group[i].closed && same_addresses(&c->group[i], p))
			c->group[i].closed = true;
	}
}

void coalesce_add(struct coalesce *c, const struct packet *p, uint16_t told)
{
	struct candidate it = classify(c, p, told);
	uint16_t index = c->packets++;
	uint16_t number = COALESCE_NONE;

	c->packet[index] = (struct iovec){ .iov_base = (void *)(uintptr_t)p->bytes, .iov_len = p->length };
	c->next[index] = COALESCE_NONE;
	if (!it.protocol)
		close_between(c, p);
	else if (c->kinds & kind_of(it.protocol))
		number = find(c, p, &it);
	if (number != COALESCE_NONE) {
		struct coalesce_group *g = &c->group[number];

		if (it.mergeable && follows(g, p, &it) && head_is_sound(c, g) && joiner_is_sound(c, g, p, &it)) {
			extend(g, p, &it);
			g->length += it.payload_bytes;
			c->next[g->last] = index;
			g->last = index;
			c->latest = number;
			return;
		}
		g->closed = true;
	}
	open_group(c, p, &it, index)->told = told;
}

/* The headers of a super-packet, made from its first packet's. */
static void merge_headers(const struct coalesce_group *g, uint8_t *headers)
{
	uint8_t *transport = headers + g->transport;
	uint32_t transport_length = g->length - g->transport;
	uint64_t sum;

	memcpy(headers, g->head, g->headers_bytes);
	if (g->version == 4) {
		store16(headers + 2, htons((uint16_t)g->length));
		store16(headers + 10, 0);
		store16(headers + 10, checksum_finish(checksum_add(0, headers, IP4_BYTES)));
		sum = checksum_pseudo(headers + 12, 8, g->protocol, transport_length);
	} else {
		store16(headers + 4, htons((uint16_t)(g->length - IP6_BYTES)));
		sum = checksum_pseudo(headers + 8, 32, g->protocol, transport_length);
	}
	/* A partial checksum: the field holds the pseudo-header's sum, not complemented. */
	if (g->protocol == IPPROTO_TCP) {
		transport[13] |= g->flags;
		store16(transport + 16, checksum_fold(sum));
	} else {
		store16(transport + 4, htons((uint16_t)transport_length));
		store16(transport + 6, checksum_fold(sum));
	}
}

static uint8_t gso_type(const struct coalesce_group *g)
{
	if (g->protocol == IPPROTO_UDP)
		return VIRTIO_NET_HDR_GSO_UDP_L4;
	return g->version == 4 ? VIRTIO_NET_HDR_GSO_TCPV4 : VIRTIO_NET_HDR_GSO_TCPV6;
}

int coalesce_build(const struct coalesce *c, uint16_t group, struct virtio_net_hdr *header, uint8_t *headers,
		   struct iovec *iov)
{
	const struct coalesce_group *g = &c->group[group];
	int count = 1;

	*header = (struct virtio_net_hdr){ .gso_type = VIRTIO_NET_HDR_GSO_NONE };
	if (g->segments == 1) { /* not ours to touch: its receiver verifies it */
		iov[0] = c->packet[g->first];
		return 1;
	}
	merge_headers(g, headers);
	header->flags = VIRTIO_NET_HDR_F_NEEDS_CSUM;
	header->csum_start = g->transport;
	header->csum_offset = g->protocol == IPPROTO_TCP ? 16 : 6;
	header->hdr_len = g->headers_bytes;
	header->gso_type = gso_type(g);
	header->gso_size = g->payload_bytes;
	iov[0] = (struct iovec){ .iov_base = headers, .iov_len = g->headers_bytes };
	for (uint16_t i = g->first; i != COALESCE_NONE; i = c->next[i]) {
		iov[count].iov_base = (uint8_t *)c->packet[i].iov_base + g->headers_bytes;
		iov[count++].iov_len = c->packet[i].iov_len - g->headers_bytes;
	}
	return count;
}
