/* udpb: the public interface of the dataplane.
 *
 * Owns the types and functions that Python sees; the region between the two marks *is* the cffi cdef. Functions return
 * 0 or a negative errno unless they say otherwise. Fields named `_be` are in network byte order.
 *
 * Threads: one thread at a time turns a queue; any thread may publish, read counters or read peers at any time.
 */
#ifndef UDPB_H
#define UDPB_H

#include <stddef.h>
#include <stdint.h>

/* cffi: begin */
#define UDPB_QUEUES_MAX 16
#define UDPB_PEERS_MAX 1048576

/* What must hold of a received packet's inner source address. Its own, martian and malformed ones never pass. */
#define UDPB_SOURCE_SUBNET 0 /* it lies in a subnet of the peer that sent the datagram */
#define UDPB_SOURCE_PEER 1   /* the datagram comes from any peer */
#define UDPB_SOURCE_OFF 2    /* nothing more */

/* What a turn found. */
#define UDPB_TURN_IDLE 0     /* no work is left */
#define UDPB_TURN_BUDGET 1   /* the budget is used up; there may be more work */
#define UDPB_TURN_TUN_GONE 2 /* flannel0 was deleted: its fd has left the epoll set; close the queue */

/* Directions and kinds of a counter; see stats.h for the law they obey. */
#define UDPB_TX 0
#define UDPB_RX 1
#define UDPB_RECEIVED 0
#define UDPB_DELIVERED 1
#define UDPB_DROPPED 2
#define UDPB_NOTE 3

/* Offloads in use, as a bit set. What the TUN hands over, what it takes, and what the UDP socket does. */
#define UDPB_OFFLOAD_CSUM 1
#define UDPB_OFFLOAD_TSO 2
#define UDPB_OFFLOAD_USO 4
#define UDPB_OFFLOAD_TCP_COALESCE 8
#define UDPB_OFFLOAD_UDP_COALESCE 16
#define UDPB_OFFLOAD_UDP_SEGMENT 32
#define UDPB_OFFLOAD_UDP_GRO 64

struct udpb; /* the dataplane; opaque, owned by the caller until udpb_free */

struct udpb_config {
	uint32_t tun_address_be;   /* of flannel0: the source of the ICMP errors we send */
	uint32_t source_check;     /* UDPB_SOURCE_* */
	uint32_t copy_dscp;        /* not 0: datagrams get their packet's DSCP, and not only its ECN */
	uint32_t offloads_off;     /* UDPB_OFFLOAD_* that are not to be used, whatever the kernel grants */
	uint32_t guard;            /* not 0: udpb_run turns its queue in a thread under a seccomp filter, where the kernel has that */
	uint8_t tun_address6[16];  /* of flannel0, likewise; all zero: it has none, and no ICMPv6 error is sent */
};

/* One prefix of the route table. With peer_address_be 0 the prefix is local: nothing is sent there, and nothing that
 * claims to come from there is let in. */
struct udpb_route {
	uint8_t net[16];          /* network order; IPv4 in the first 4 bytes */
	uint32_t peer_address_be; /* the peer's public IPv4 address */
	uint16_t peer_port_be;
	uint8_t version;          /* of the prefix: 4 or 6 */
	uint8_t prefix_bits;
};

struct udpb_peer {
	uint32_t address_be;
	uint16_t port_be;
	uint16_t unanswered_s;    /* how long packets have been sent to it while no good one came; 0 while none is sent */
	uint32_t path_mtu_bytes;  /* of the outer path as it is believed, where a smaller one was learned; else 0 */
	uint32_t path_mtu_left_s; /* how long it is still believed */
	uint64_t tx_packets, tx_bytes, rx_packets, rx_bytes; /* inner; since the peer first appeared */
	int64_t silent_ns;        /* since the last good packet from it; -1 for never */
	uint64_t tx_dropped;      /* packets for it that found no room on the way, of those counted as dropped */
	int64_t dropped_ago_ns;   /* since the last of them; -1 for never */
};

struct udpb_counter {
	const char *name, *meaning, *cure; /* static storage */
	uint8_t direction;                 /* UDPB_TX, UDPB_RX */
	uint8_t kind;                      /* UDPB_RECEIVED, ..., UDPB_NOTE */
};

int udpb_new(const struct udpb_config *config, struct udpb **out);

/* Frees everything. No queue may be turning; every queue is closed first. NULL is allowed. */
void udpb_free(struct udpb *u);

/* Replaces the whole route table, atomically for every packet. `routes` is borrowed until the call returns. Errors:
 * -EINVAL (a bad prefix or peer address), -EEXIST (one prefix twice), -E2BIG (over UDPB_PEERS_MAX peers), -ENOMEM; the
 * old table then stays. Counters and path MTU of peers that stay are kept. */
int udpb_publish(struct udpb *u, const struct udpb_route *routes, size_t count);

/* Frees tables that no queue uses any more; a publish does the same. Returns how many still wait. */
int udpb_reclaim(struct udpb *u);

/* Opens queue 0..UDPB_QUEUES_MAX-1 on two non-blocking fds, borrowed until udpb_queue_close: a TUN with a virtio
 * header, whose offloads are negotiated here, and a bound IPv4 UDP socket. Counters go on from where they stood. */
int udpb_queue_open(struct udpb *u, uint32_t queue, int tun_fd, int udp_fd);

/* Adds a socket to the queue that only sends, on a source port of its own (borrowed until udpb_queue_close): flows are spread
 * over all sockets of the queue, each flow stays on one. What is sent to that port is dropped. At most 15. Not while the
 * queue turns. */
int udpb_queue_add_socket(struct udpb *u, uint32_t queue, int udp_fd);

/* Makes the TUN of which `tun_fd` is a queue choose queues by a fixed hash, so that a flow never changes its queue. For a
 * TUN with several queues. Returns 0 or a negative errno (-EPERM: CAP_BPF is needed). */
int udpb_steer(int tun_fd);

/* Sends what waits in the queue for a full socket, and reads no more from the TUN: the queue can be closed afterwards
 * without loss. Ends with the stall at the latest (after 100 ms without progress the packets are dropped and counted). Not
 * while the queue turns. */
int udpb_queue_flush(struct udpb *u, uint32_t queue);

/* Closes a queue: what it had not sent is counted as dropped. Not while it turns. */
void udpb_queue_close(struct udpb *u, uint32_t queue);

/* The queue's epoll fd, readable when a turn is due. Owned by the handle. */
int udpb_queue_fd(const struct udpb *u, uint32_t queue);

/* Offloads in use on the queue, UDPB_OFFLOAD_*; a kernel that refuses one at run time makes them fewer. */
uint32_t udpb_queue_offloads(struct udpb *u, uint32_t queue);

/* 1 while a program that computes shares the core of whoever turns the queue, as far as yields have told; else 0. */
int udpb_queue_crowded(struct udpb *u, uint32_t queue);

/* Moves packets both ways until there is none left for `linger_ns`, or `budget_ns` is used up. The wait of the linger
 * ends early when `loop_fd` (the event loop's own epoll fd, or -1) has other work. Returns UDPB_TURN_* or a negative
 * errno when the queue is broken beyond counting. */
int udpb_turn(struct udpb *u, uint32_t queue, int64_t budget_ns, int64_t linger_ns, int loop_fd);

/* Turns a queue until `stop_fd` (an eventfd; borrowed) is readable: what a worker thread does for its life. Returns 0 then,
 * UDPB_TURN_TUN_GONE, or a negative errno. */
int udpb_run(struct udpb *u, uint32_t queue, int stop_fd);

/* The same once `go_fd` is readable. `ready_fd` is written when nothing but that is waited for: from then on the queue needs
 * nothing but the processor to be turned. Both are eventfds, borrowed. */
int udpb_run_when(struct udpb *u, uint32_t queue, int ready_fd, int go_fd, int stop_fd);

/* From now on udpb_run, when it is told to stop, flushes the queue as udpb_queue_flush does and then writes `next_fd` (an
 * eventfd; borrowed until the queue is closed): for whoever turns the same fds next, in this or in another process. */
int udpb_queue_pass_on(struct udpb *u, uint32_t queue, int next_fd);

/* Takes all capabilities but these (a bit set, 1 << CAP_*) from the calling thread and from what it starts later, and makes
 * sure that no program it starts gets more. Returns 0 or a negative errno. */
int udpb_limit_rights(uint64_t capabilities);

/* Whether the queue is turned under a seccomp filter now: 1; 0 where no udpb_run turns it, or none is asked for; the negative
 * errno for which there is none. */
int udpb_guard(const struct udpb *u, uint32_t queue);

/* How many system calls such filters have refused in this process; the number of the last one in `last_call`. Should be 0. */
uint64_t udpb_calls_refused(int *last_call);

uint32_t udpb_counters(void); /* how many counters there are */

int udpb_counter_info(uint32_t counter, struct udpb_counter *out);

/* Sums every queue's counters into values[0..count-1]. */
int udpb_read_counters(const struct udpb *u, uint64_t *values, uint32_t count);

/* Adds to the counters what another process has counted before: it handed its queues over. One thread at a time. */
int udpb_add_counters(struct udpb *u, const uint64_t *values, uint32_t count);

/* Packets taken from flannel0 and not yet accepted by the UDP socket. */
uint32_t udpb_in_flight(struct udpb *u);

/* The last errno behind a counter that stands for several. */
struct udpb_error {
	int32_t error;    /* the errno; 0: there was none */
	uint32_t counter; /* as in udpb_counter_info */
	int64_t age_s;    /* whole seconds since */
};

void udpb_last_error(const struct udpb *u, struct udpb_error *out);

/* Copies up to `capacity` peers of the published table into `out`; returns how many there are. */
size_t udpb_read_peers(struct udpb *u, struct udpb_peer *out, size_t capacity);

/* Adds to peers of the published table what udpb_read_peers of another process has told: counters, and when they were last
 * heard, which assumes that no time has passed. `rows` is borrowed until the call returns. Returns how many of them are
 * peers still. */
size_t udpb_restore_peers(struct udpb *u, const struct udpb_peer *rows, size_t count);

/* Likewise the path MTU of peers of which none is known. */
size_t udpb_restore_paths(struct udpb *u, const struct udpb_peer *rows, size_t count);
/* cffi: end */

#endif
