/* receive: the network to flannel0, a batch at a time: receive, check who sent it, validate, merge, write.
 *
 * Owns the batch. It must not know epoll, time sources or Python.
 */
#ifndef UDPB_RECEIVE_H
#define UDPB_RECEIVE_H

#include "coalesce.h"
#include "packet.h"
#include "stats.h"
#include "table.h"
#include "tun_io.h"
#include "udp_io.h"

#define RECEIVE_MESSAGES 64           /* in a batch at most, when they are small */
#define RECEIVE_BATCH_BYTES 200000    /* about so many are wanted when they are large: a batch shall stay in the L2 cache */
#define RECEIVE_BATCH_WRITES 256      /* ... and of datagrams written one by one: a write takes a microsecond, in which
					 nothing is sent and the receiving program cannot read what its socket holds */
#define RECEIVE_HEADROOM 64           /* of each slot: room for a virtio header, and a whole cache line */
#define RECEIVE_SLOT_BYTES (65536 + 192) /* an exact power of two would start every slot in the same cache set */
#define RECEIVE_ARENA_BYTES (RECEIVE_MESSAGES * RECEIVE_SLOT_BYTES)

/* The last inner source that was let in, with whom it came from: the next packet mostly has the same. */
struct receive_memory {
	uint8_t source[16];
	uint8_t version; /* 0: none */
	uint32_t outer_be;
	struct peer *peer;
};

struct receive {
	struct tun_io *tun; /* borrowed, as are the next two */
	const struct udp_io *udp;
	struct stats *stats;
	uint32_t source_check; /* UDPB_SOURCE_* */
	int64_t now_ns;        /* of the batch */
	uint32_t wanted;       /* messages to ask for: many small or few large ones */
	uint32_t written;      /* writes of this batch */
	struct receive_memory memory; /* valid inside one batch */
	struct sockaddr_in names[RECEIVE_MESSAGES];
	struct iovec iov[RECEIVE_MESSAGES];
	union udp_io_control controls[RECEIVE_MESSAGES];
	struct mmsghdr messages[RECEIVE_MESSAGES];
	struct coalesce coalesce;
};

/* Prepares for batches in `arena` (borrowed; RECEIVE_ARENA_BYTES). */
void receive_init(struct receive *r, struct tun_io *tun, const struct udp_io *udp, struct stats *stats,
		  const struct udpb_config *config, uint8_t *arena);

/* Moves one batch. Returns how many messages were received, or the -errno by which the TUN is gone (the whole batch is
 * counted all the same). A receive error is counted and looks like an empty batch. */
int receive_batch(struct receive *r, const struct table *table, int64_t now_ns);

#endif
