/* answer: the ICMP errors we send back to where a packet came from, as often as is decent.
 *
 * Owns the rate limits and the writing. It must not know why a packet is not sent.
 */
#ifndef UDPB_ANSWER_H
#define UDPB_ANSWER_H

#include "icmp.h"
#include "stats.h"
#include "tun_io.h"

/* A token bucket, after the kernel's own limit on ICMP errors. */
struct answer_limit {
	int64_t refilled_ns;
	uint32_t tokens;
};

struct answer {
	const struct tun_io *tun; /* borrowed, as is the next */
	struct stats *stats;
	uint32_t source_be;       /* flannel0's address */
	uint8_t source6[16];      /* likewise; all zero when flannel0 has none: nothing is sent then */
	struct answer_limit unreachable, too_big;
};

void answer_init(struct answer *a, const struct tun_io *tun, struct stats *stats, const struct udpb_config *config);

/* No peer owns the destination. */
void answer_unreachable(struct answer *a, const struct packet *about, int64_t now_ns);

/* The packet is longer than the `mtu_bytes` that fit. */
void answer_too_big(struct answer *a, const struct packet *about, uint32_t mtu_bytes, int64_t now_ns);

#endif
