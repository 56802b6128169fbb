/* transmit: flannel0 to the network, a batch at a time: read, validate, look up, cut into datagrams, send.
 *
 * Owns the batch and what is left of it while the socket is full. It must not know epoll, time sources or Python. Its parts
 * stand one above the other: transmit_done, transmit_compose, transmit_path, and transmit.c, which uses all three.
 */
#ifndef UDPB_TRANSMIT_H
#define UDPB_TRANSMIT_H

#include <stdatomic.h>

#include "answer.h"
#include "lanes.h"
#include "segment.h"
#include "stats.h"
#include "table.h"
#include "tun_io.h"
#include "udp_io.h"

#define TRANSMIT_PACKETS 64           /* in a batch at most */
#define TRANSMIT_BATCH_BYTES 100000   /* and no further read beyond so many: a batch shall stay in the L2 cache */
#define TRANSMIT_DATAGRAMS 256        /* composed at once */
#define TRANSMIT_STALL_NS 100000000LL /* a full socket may hold a batch for this long */
#define TRANSMIT_PATH_MTU_NS 600000000000LL /* RFC 1191, 6.3: ten minutes; Linux's own memory is as long */
#define TRANSMIT_PATH_MTU_ASK_NS 3000000000LL /* the kernel may know better at once, and is asked again after so long */
#define TRANSMIT_IPV6_LEAST_BYTES 1280 /* RFC 8200, 5: what every IPv6 link takes */
#define TRANSMIT_SEGMENT_NS 30000000000LL /* a path that refused UDP_SEGMENT is asked again after so long */
#define TRANSMIT_ALONE 4 /* so many datagrams of a batch refused alone: it is not their number, as with a blackhole route */
#define TRANSMIT_ALONE_NS 1000000000LL /* for so long it is not asked again whether fewer would pass */
#define TRANSMIT_SOCKETS_MAX LANES_PORTS_MAX
#define TRANSMIT_READ_BYTES (TRANSMIT_BATCH_BYTES + 65536 + 160) /* a multiple of 64: the first run begins a cache line */
#define TRANSMIT_PACKED_BYTES (TRANSMIT_READ_BYTES + TRANSMIT_DATAGRAMS * SEGMENT_HEADERS_MAX) /* all that is composed */
#define TRANSMIT_ARENA_BYTES (TRANSMIT_READ_BYTES + TRANSMIT_PACKED_BYTES)

/* One packet of the batch. */
struct transmit_packet {
	struct segment_source source;
	struct peer *peer;   /* valid inside one call: the table may be swapped between two. NULL: dropped */
	uint32_t port;       /* of its flow: the number of the socket, or of its namesake in a lane */
	struct udp_io *udp;  /* that socket; valid as long as the peer. NULL: none has been asked for yet */
	uint8_t tos;         /* of the datagrams it leaves in: their ECN is the packet's (RFC 6040, 4.1) */
};

/* How far the batch is sent: everything before segment `segment` of packet `packet`. */
struct transmit_position {
	uint32_t packet, segment;
};

/* One message to the socket: equal datagrams to one peer, with one TOS; the last may be shorter. */
struct transmit_run {
	struct peer *peer;
	struct udp_io *udp;
	struct transmit_position end; /* of the batch after it */
	bool may_fragment; /* its only datagram is longer than the path is said to take, and is to arrive all the same */
	uint32_t datagrams, bytes, datagram_bytes;
	uint32_t segments_max;
	uint8_t tos;
};

struct transmit {
	const struct tun_io *tun; /* borrowed, as is the next */
	struct stats *stats;
	struct lanes lanes; /* the sockets; the first of those that all peers share is also the one that receives */
	struct answer answer;
	uint8_t tos_mask; /* what of a packet's TOS its datagrams get */
	uint8_t *arena;  /* packets as read; borrowed, as is the next */
	uint8_t *packed; /* where datagrams are put together */

	uint32_t count; /* packets in the batch */
	struct transmit_position position;
	uint32_t cut_done_bytes;  /* payload of the segment at `position` that has left as fragments */
	uint32_t cut_address_be;  /* ... to this peer */
	int64_t blocked_since_ns; /* when the socket last refused without taking any; 0 when it is not full */
	int full_fd;              /* the socket that refused, while blocked */
	uint32_t unsure_be;       /* the peer last taken to refuse UDP_SEGMENT, until a datagram alone has shown it right; or 0 */
	uint32_t alone;           /* datagrams of this batch that were refused alone, after their run was */
	_Atomic uint32_t in_flight; /* segments still to be sent, for other threads, when a call ends */
	struct transmit_packet packets[TRANSMIT_PACKETS];

	/* What compose has made of the batch from `position` on. */
	uint32_t runs_count, datagrams_count, packed_bytes;
	struct transmit_run runs[TRANSMIT_DATAGRAMS];
	struct mmsghdr messages[TRANSMIT_DATAGRAMS];
	struct sockaddr_in addresses[TRANSMIT_DATAGRAMS];
	union udp_io_control controls[TRANSMIT_DATAGRAMS];
	struct iovec iov[TRANSMIT_DATAGRAMS];
};

/* Prepares for batches in `arena` (borrowed; TRANSMIT_ARENA_BYTES). */
void transmit_init(struct transmit *t, const struct tun_io *tun, struct udp_io *udp, struct stats *stats,
		   const struct udpb_config *config, uint8_t *arena);

/* Adds a socket with a source port of its own (borrowed): flows are spread over all sockets, each flow stays on one. Not
 * while blocked. Returns 0 or -ENOSPC. */
int transmit_add_socket(struct transmit *t, struct udp_io *udp);

/* Counts what still waits as dropped, and closes the lanes. */
void transmit_release(struct transmit *t);

/* Moves one batch. Not while blocked. Returns how many packets were read, or the -errno by which the TUN is gone (what
 * had been read is sent or counted all the same). */
int transmit_batch(struct transmit *t, const struct table *table, int64_t now_ns);

/* Tries again what waits for the socket; drops it when it has waited too long. */
void transmit_resume(struct transmit *t, const struct table *table, int64_t now_ns);

static inline int transmit_blocked(const struct transmit *t)
{
	return t->position.packet < t->count;
}

#endif
