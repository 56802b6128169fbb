/* transmit: flannel0 to the network, a batch at a time: read, validate, look up, send one datagram a packet.
 *
 * Owns the batch and what is left of it while the socket is full. It must not know epoll, time sources or Python.
 */
#ifndef UDPB_TRANSMIT_H
#define UDPB_TRANSMIT_H

#include <stdatomic.h>

#include "packet.h"
#include "stats.h"
#include "table.h"
#include "tun_io.h"
#include "udp_io.h"

#define TRANSMIT_BATCH 32
#define TRANSMIT_STALL_NS 100000000LL     /* a full socket may hold a batch for this long */
#define TRANSMIT_PATH_MTU_NS 600000000000LL /* RFC 1191, 6.3: ten minutes; Linux's own memory is as long */

/* A token bucket, after the kernel's own limit on ICMP errors. */
struct limiter {
	int64_t refilled_ns;
	uint32_t tokens;
};

struct transmit {
	const struct tun_io *tun; /* borrowed, as are the next two */
	const struct udp_io *udp;
	struct stats *stats;
	uint32_t tun_address_be, local_address_be;
	uint8_t *arena; /* TRANSMIT_BATCH slots; owned */
	struct limiter unreachable, too_big;

	/* The batch, by position: the first `waiting` positions hold packets that are still to be sent. */
	uint32_t waiting;
	_Atomic uint32_t in_flight; /* the same figure, for other threads, when a turn ends */
	struct packet packets[TRANSMIT_BATCH];
	struct peer *peers[TRANSMIT_BATCH]; /* valid only inside one call: the table may be swapped between two */
	struct sockaddr_in addresses[TRANSMIT_BATCH];
	struct iovec iov[TRANSMIT_BATCH];
	struct mmsghdr messages[TRANSMIT_BATCH];
	uint32_t free_slots[TRANSMIT_BATCH]; /* a stack of arena slots that no waiting packet uses */
	uint32_t free_count;
	uint32_t cut_done_bytes;   /* payload of the first waiting packet that has left as fragments */
	int64_t blocked_since_ns;  /* when the socket last refused without taking any; 0 when it is not full */
};

int transmit_init(struct transmit *t, const struct tun_io *tun, const struct udp_io *udp, struct stats *stats,
		  uint32_t tun_address_be, uint32_t local_address_be); /* 0 or -ENOMEM */
void transmit_release(struct transmit *t); /* counts what still waits as dropped */

/* Moves one batch. Not while blocked. Returns how many packets were read, or the -errno by which the TUN is gone (what
 * had been read is sent or counted all the same). */
int transmit_batch(struct transmit *t, const struct table *table, int64_t now_ns);

/* Tries again what waits for the socket; drops it when it has waited too long. */
void transmit_resume(struct transmit *t, const struct table *table, int64_t now_ns);

static inline int transmit_blocked(const struct transmit *t)
{
	return t->waiting > 0;
}

#endif
