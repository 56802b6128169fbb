/* queue: one queue: its two fds, its epoll set, both directions, and the turn that moves them.
 *
 * Owns the epoll and timer fds and the buffers. It must not know other queues or how tables are published: it is given a
 * pointer to load the current one from.
 */
#ifndef UDPB_QUEUE_H
#define UDPB_QUEUE_H

#include <stdatomic.h>

#include "look.h"
#include "receive.h"
#include "transmit.h"
#include "yield.h"

struct queue {
	/* Odd while inside a batch, even when idle or waiting: what a publisher needs to know to free an old table. */
	_Atomic uint64_t generation __attribute__((aligned(64)));
	struct table *_Atomic *table; /* borrowed; where the published table stands */
	int epoll_fd, timer_fd;
	int full_fd; /* the socket whose room is waited for, or -1 */
	_Atomic int next_fd; /* the eventfd of who turns the fds next in another process, or -1 */
	struct yield yield;
	struct look look;
	void *arena;    /* of both directions */
	struct tun_io tun;
	struct udp_io udp;
	struct udp_io extra[TRANSMIT_SOCKETS_MAX - 1]; /* they only send */
	uint32_t extra_count;
	uint32_t offloads_off; /* UDPB_OFFLOAD_* */
	struct transmit transmit;
	struct receive receive;
};

/* The borrowed parts a queue is made of. */
struct queue_parts {
	int tun_fd, udp_fd;
	struct table *_Atomic *table;
	struct stats *stats;
	const struct udpb_config *config; /* until the call returns */
};

int queue_open(const struct queue_parts *parts, struct queue **out); /* 0 or -errno */
void queue_close(struct queue *queue);

/* Adds a socket that only sends, on a port of its own (borrowed). Not while the queue turns. 0 or -errno. */
int queue_add_socket(struct queue *queue, int udp_fd);

/* Whether a program that computes shares the core, as far as yields have told. Any thread may ask. */
bool queue_crowded(const struct queue *queue);

uint32_t queue_offloads(const struct queue *queue); /* UDPB_OFFLOAD_* in use */

/* As udpb_queue_flush. */
int queue_flush(struct queue *queue);

/* The same between `queue_take` and `queue_give`. */
void queue_drain(struct queue *queue);

/* Has the kernel give its buffers their memory now: a first batch would wait for it. Not while it turns. */
void queue_warm(struct queue *queue);

/* The three parts of a turn. `queue_take` takes the waiting away from the event loop; then `queue_run` until the TUN is gone,
 * the queue has nothing to do or the budget is used up: UDPB_TURN_*, as often as one likes; `queue_give` gives the waiting
 * back and returns what the last run did, or -errno. A run makes no system calls but those that `guard`
 * allows, nor does a drain. */
void queue_take(struct queue *queue);
int queue_run(struct queue *queue, int64_t budget_ns, int64_t linger_ns, int loop_fd);
int queue_give(struct queue *queue, int outcome);

/* As udpb_turn. */
int queue_turn(struct queue *queue, int64_t budget_ns, int64_t linger_ns, int loop_fd);

#endif
