/* transmit: flannel0 to the network, a batch at a time: read, validate, look up, cut into datagrams, send.
 *
 * Owns the batch and what is left of it while the socket is full. It must not know epoll, time sources or Python.
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
#define TRANSMIT_SOCKETS_MAX LANES_PORTS_MAX
#define TRANSMIT_READ_BYTES (TRANSMIT_BATCH_BYTES + 65536 + 160) /* a multiple of 64: the first run begins a cache line */
#define TRANSMIT_PACKED_BYTES (TRANSMIT_READ_BYTES + TRANSMIT_DATAGRAMS * SEGMENT_HEADERS_MAX) /* all that is composed */
#define TRANSMIT_ARENA_BYTES (TRANSMIT_READ_BYTES + TRANSMIT_PACKED_BYTES)

/* One packet of the batch. */
struct transmit_packet {
	struct segment_source source;
	struct peer *peer;   /* valid inside one call: the table may be swapped between two. NULL: dropped */
	uint32_t port;       /* of its flow: the number of the socket, or of its namesake in a lane */
	struct udp_io *udp;  /* that socket; valid as long as the peer */
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

/* Bytes that an inner packet of this IP version to the peer may have, where its path is said to take `path_mtu` bytes
 * (UINT32_MAX: nothing is said). No less than is plausible, and for IPv6 no less than IPv6 needs. */
uint32_t transmit_room(uint32_t path_mtu, uint8_t version);

/* Puts segment `index` together at `to`, which has room for the segment and SEGMENT_HEADERS_MAX. Returns its bytes. */
uint32_t transmit_pack(const struct segment_source *source, uint32_t index, uint8_t *to);

/* Makes `runs` and `messages` of what comes after the position: until the batch ends, there is no more room, or a packet
 * does not fit its path. (transmit_compose.c; for transmit.c.) */
void transmit_compose(struct transmit *t, int64_t now_ns);

/* Moves the position to the next packet. (transmit.c, as the next two; for transmit_path.c.) */
void transmit_next_packet(struct transmit *t);

/* Counts packets that the kernel took in one message for a peer, and their bytes. */
void transmit_count_sent(struct transmit *t, struct peer *peer, uint32_t packets, uint32_t bytes);

/* Counts datagrams to a peer that the kernel refused with this -errno as dropped. */
void transmit_drop_by_errno(struct transmit *t, const struct udp_io *udp, struct peer *peer, int error, uint32_t datagrams,
			    int64_t now_ns);

/* The kernel has taken the segment at the position as a datagram of its own. */
void transmit_segment_sent(struct transmit *t, uint32_t bytes);

/* What transmit_ask finds. */
enum transmit_answer {
	TRANSMIT_SENT,    /* the kernel has taken it after all */
	TRANSMIT_LEARNED, /* it is now known not to fit; anything else is a negative errno */
};

/* Sends one datagram of the packet, made of these pieces, and learns what it exceeds where the kernel refuses it for its
 * length. (transmit_path.c, as the next; for transmit.c.) */
int transmit_ask(struct transmit *t, const struct transmit_packet *it, struct iovec *pieces, size_t count, int64_t now_ns);

/* The packet at the position is over its path's MTU, or the kernel is to be asked whether it still is. DF: it goes, and its
 * sender is told. Otherwise its next segment is put together and cut. Returns 0 when the position has moved or the batch is
 * to be composed anew, -EAGAIN when the socket is full. */
int transmit_send_too_big(struct transmit *t, int64_t now_ns);

static inline int transmit_blocked(const struct transmit *t)
{
	return t->position.packet < t->count;
}

#endif
