/* receive: the network to flannel0, a batch at a time: receive, check who sent it, validate, write.
 *
 * Owns the batch's buffers. It must not know epoll, time sources or Python.
 */
#ifndef UDPB_RECEIVE_H
#define UDPB_RECEIVE_H

#include "packet.h"
#include "stats.h"
#include "table.h"
#include "tun_io.h"
#include "udp_io.h"

#define RECEIVE_BATCH 16

struct receive {
	const struct tun_io *tun; /* borrowed, as are the next two */
	const struct udp_io *udp;
	struct stats *stats;
	uint32_t source_check; /* UDPB_SOURCE_* */
	uint8_t *arena;        /* RECEIVE_BATCH slots; owned */
	struct sockaddr_in names[RECEIVE_BATCH];
	struct iovec iov[RECEIVE_BATCH];
	struct mmsghdr messages[RECEIVE_BATCH];
};

int receive_init(struct receive *r, const struct tun_io *tun, const struct udp_io *udp, struct stats *stats,
		 uint32_t source_check); /* 0 or -ENOMEM */
void receive_release(struct receive *r);

/* Moves one batch. Returns how many datagrams were received, or the -errno by which the TUN is gone (the whole batch is
 * counted all the same). A receive error is counted and looks like an empty batch. */
int receive_batch(struct receive *r, const struct table *table, int64_t now_ns);

#endif
