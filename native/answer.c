/* answer: see answer.h. Two buckets: a scan of unused addresses must not cost anybody his path MTU discovery. */
#include "answer.h"

#include <string.h>

#define PER_SECOND 100
#define BURST 50
#define IPV6_MIN_MTU 1280 /* RFC 8200, 5: what every IPv6 link takes; to be told less would make no sender send less */

void answer_init(struct answer *a, const struct tun_io *tun, struct stats *stats, const struct udpb_config *config)
{
	*a = (struct answer){
		.tun = tun,
		.stats = stats,
		.source_be = config->tun_address_be,
		.unreachable.tokens = BURST,
		.too_big.tokens = BURST,
	};
	memcpy(a->source6, config->tun_address6, sizeof(a->source6));
}

static int take(struct answer_limit *limit, int64_t now_ns)
{
	const int64_t token_ns = 1000000000LL / PER_SECOND;
	int64_t earned = (now_ns - limit->refilled_ns) / token_ns;

	if (earned > 0) {
		limit->refilled_ns += earned * token_ns;
		earned += limit->tokens;
		limit->tokens = earned > BURST ? BURST : (uint32_t)earned;
	}
	if (limit->tokens == 0)
		return 0;
	limit->tokens--;
	return 1;
}

/* Whether flannel0 has an address to answer a packet from. */
static bool has_source(const struct answer *a, const struct packet *about)
{
	static const uint8_t none[sizeof(a->source6)];

	return about->version == 4 || memcmp(a->source6, none, sizeof(none)) != 0;
}

/* Whether rules and limit allow an error; counts it where they do not. */
static bool may_send(struct answer *a, bool may_answer, struct answer_limit *limit, int64_t now_ns)
{
	if (!may_answer) {
		stats_add(a->stats, STAT_tx_icmp_suppressed, 1);
		return false;
	}
	if (!take(limit, now_ns)) {
		stats_add(a->stats, STAT_tx_icmp_limited, 1);
		return false;
	}
	return true;
}

static void send_error(struct answer *a, const uint8_t *error, size_t length, enum stat_id counter)
{
	if (tun_io_write_packet(a->tun, error, length) < 0)
		stats_add(a->stats, STAT_tx_icmp_failed, 1);
	else
		stats_add(a->stats, counter, 1);
}

void answer_unreachable(struct answer *a, const struct packet *about, int64_t now_ns)
{
	uint8_t error[PACKET_ICMP6_MAX_BYTES];
	size_t length;

	if (!has_source(a, about) || !may_send(a, packet_may_answer(about), &a->unreachable, now_ns))
		return;
	if (about->version == 4)
		length = packet_icmp_unreachable(about, PACKET_ICMP_HOST_UNREACHABLE, 0, a->source_be, error);
	else
		length = packet_icmp6_error(about, PACKET_ICMP6_UNREACHABLE, PACKET_ICMP6_ADDRESS_UNREACHABLE, 0, a->source6,
					    error);
	send_error(a, error, length, STAT_tx_icmp_unreachable);
}

void answer_too_big(struct answer *a, const struct packet *about, uint32_t mtu_bytes, int64_t now_ns)
{
	uint8_t error[PACKET_ICMP6_MAX_BYTES];
	size_t length;

	if (!has_source(a, about) || !may_send(a, packet_may_answer_too_big(about), &a->too_big, now_ns))
		return;
	if (about->version == 4)
		length = packet_icmp_unreachable(about, PACKET_ICMP_FRAGMENTATION_NEEDED, (uint16_t)mtu_bytes, a->source_be,
						 error);
	else
		length = packet_icmp6_error(about, PACKET_ICMP6_TOO_BIG, 0, mtu_bytes < IPV6_MIN_MTU ? IPV6_MIN_MTU : mtu_bytes,
					    a->source6, error);
	send_error(a, error, length, STAT_tx_icmp_too_big);
}
