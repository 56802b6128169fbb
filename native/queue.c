/* queue: see queue.h.
 *
 * Theory of operation. A turn alternates batches of both directions until neither finds anything, then lingers: it waits
 * a little for the next packet, because to come back through the event loop costs more than to stay.
 *
 * The fds are in the epoll set only between turns ("parked"). As long as they are in one, the kernel calls back into it
 * for every packet that arrives and for every datagram whose memory is freed after it was sent, under a lock: that was a
 * fifth of the sender's time. Within a turn we wait with poll, whose callbacks last no longer than the wait.
 *
 * After a few packets that came alone the queue looks for the next one before it sleeps (see look.h), giving way to
 * whoever wants the core. A stream never gets there.
 *
 * A core that is shared is given away after every batch received, and after a whole batch of packets sent. The program
 * that reads what was delivered then finds it in the cache, and before its socket overflows; who acknowledges or waits for
 * acknowledgements works on. Without, the scheduler lets each of them run for milliseconds, and every copy on the way
 * reads what has long left the cache. When nobody else wants the core a yield costs next to nothing; where somebody
 * takes it for long, the queue gives it up (see yield.h), and looks for no packet either: who sleeps is woken at once.
 * After a packet that came alone there is no yield: its receiver is woken anyway.
 *
 * Around each batch the generation is odd. A table loaded then stays valid until it is even again; both
 * accesses are sequentially consistent, so a publisher that has swapped the pointer and then reads an even generation
 * knows that the next batch will see its table.
 *
 * While the socket is full the TUN is not waited for (its packets wait in the kernel's ring, which drops and counts what
 * does not fit), the socket is watched for room, and the wait is bounded: by a timer between turns, by poll's within one.
 */
#include "queue.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#define SECOND_NS 1000000000LL
#define ARENA_BYTES (TRANSMIT_ARENA_BYTES + RECEIVE_ARENA_BYTES)

#define WAITS_MAX 2 /* fds that a queue waits for at a time */
#define DRAIN_WAIT_NS 10000000L /* between two attempts */
#define PAGE_BYTES 4096 /* the smallest there is */
#define STALL_WAIT_NS (TRANSMIT_STALL_NS + SECOND_NS / 1000) /* a little later than a stall's end: one wait is enough */

static int64_t now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * SECOND_NS + now.tv_nsec;
}

static int watch(const struct queue *q, int operation, int fd, uint32_t events)
{
	struct epoll_event event = { .events = events, .data.fd = fd };

	return epoll_ctl(q->epoll_fd, operation, fd, &event) < 0 ? -errno : 0;
}

static void arm_timer(const struct queue *q, int64_t delay_ns)
{
	struct itimerspec when = { .it_value = { .tv_sec = delay_ns / SECOND_NS, .tv_nsec = delay_ns % SECOND_NS } };

	timerfd_settime(q->timer_fd, 0, &when, NULL); /* setting it also takes an expiry back: the fd is not ready any more */
}

/* What the queue waits for now; gives the number of entries. */
static nfds_t waits(const struct queue *q, struct pollfd fds[WAITS_MAX])
{
	nfds_t count = 0;

	fds[count++] = (struct pollfd){ .fd = q->udp.fd, .events = POLLIN };
	if (q->full_fd < 0)
		fds[count++] = (struct pollfd){ .fd = q->tun.fd, .events = POLLIN };
	else if (q->full_fd == q->udp.fd)
		fds[0].events |= POLLOUT;
	else
		fds[count++] = (struct pollfd){ .fd = q->full_fd, .events = POLLOUT };
	return count;
}

/* Leaves the waiting to the epoll set, and so to the event loop. */
static int park(struct queue *q)
{
	struct pollfd fds[WAITS_MAX];
	nfds_t count = waits(q, fds);
	int error = 0;

	for (nfds_t i = 0; i < count && !error; i++)
		error = watch(q, EPOLL_CTL_ADD, fds[i].fd, (uint32_t)fds[i].events); /* EPOLLIN is POLLIN */
	if (q->full_fd >= 0)
		arm_timer(q, STALL_WAIT_NS);
	return error;
}

/* Takes back what `park` did; a dead fd has left the set by itself. */
static void unpark(struct queue *q)
{
	struct pollfd fds[WAITS_MAX];
	nfds_t count = waits(q, fds);

	for (nfds_t i = 0; i < count; i++)
		watch(q, EPOLL_CTL_DEL, fds[i].fd, 0);
	if (q->full_fd >= 0)
		arm_timer(q, 0);
}

static int open_fds(struct queue *q, const struct queue_parts *parts)
{
	int error = tun_io_open(&q->tun, parts->tun_fd, q->offloads_off);

	if (!error)
		error = udp_io_open(&q->udp, parts->udp_fd, q->offloads_off);
	if (error)
		return error;
	q->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	if (q->epoll_fd < 0)
		return -errno;
	q->timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
	if (q->timer_fd < 0)
		return -errno;
	error = watch(q, EPOLL_CTL_ADD, q->timer_fd, EPOLLIN);
	return error ? error : park(q);
}

static void close_fds(struct queue *q)
{
	if (q->epoll_fd >= 0)
		close(q->epoll_fd);
	if (q->timer_fd >= 0)
		close(q->timer_fd);
}

/* One mapping for all buffers, on huge pages where the kernel has some: walks of the page table cost several per cent.
 * What a queue never uses of it stays untouched. */
static void *map_arena(void)
{
	void *arena = mmap(NULL, ARENA_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (arena == MAP_FAILED)
		return NULL;
	(void)madvise(arena, ARENA_BYTES, MADV_HUGEPAGE);
	return arena;
}

int queue_open(const struct queue_parts *parts, struct queue **out)
{
	struct queue *q = aligned_alloc(64, sizeof(*q));
	int error = -ENOMEM;

	if (!q)
		return -ENOMEM;
	memset(q, 0, sizeof(*q));
	q->table = parts->table;
	q->offloads_off = parts->config->offloads_off;
	q->epoll_fd = q->timer_fd = q->full_fd = -1;
	atomic_init(&q->next_fd, -1);
	yield_init(&q->yield);
	q->arena = map_arena();
	if (q->arena)
		error = open_fds(q, parts);
	if (error) {
		close_fds(q);
		if (q->arena)
			munmap(q->arena, ARENA_BYTES);
		free(q);
		return error;
	}
	transmit_init(&q->transmit, &q->tun, &q->udp, parts->stats, parts->config, q->arena);
	receive_init(&q->receive, &q->tun, &q->udp, parts->stats, parts->config, (uint8_t *)q->arena + TRANSMIT_ARENA_BYTES);
	*out = q;
	return 0;
}

void queue_close(struct queue *q)
{
	transmit_release(&q->transmit);
	close_fds(q);
	munmap(q->arena, ARENA_BYTES);
	free(q);
}

int queue_add_socket(struct queue *q, int udp_fd)
{
	struct udp_io *extra = &q->extra[q->extra_count];
	int error;

	if (q->extra_count == TRANSMIT_SOCKETS_MAX - 1)
		return -ENOSPC;
	error = udp_io_open_sender(extra, udp_fd, q->offloads_off);
	if (!error)
		error = transmit_add_socket(&q->transmit, extra);
	if (!error)
		q->extra_count++;
	return error;
}

bool queue_crowded(const struct queue *q)
{
	return now_ns() < atomic_load_explicit(&q->yield.crowded_ns, memory_order_relaxed);
}

uint32_t queue_offloads(const struct queue *q)
{
	return q->tun.offloads | (q->udp.segments_max > 1 ? UDPB_OFFLOAD_UDP_SEGMENT : 0) |
	       (q->udp.gro ? UDPB_OFFLOAD_UDP_GRO : 0);
}

/* The published table, valid until `leave`. */
static const struct table *enter(struct queue *q)
{
	atomic_store(&q->generation, atomic_load_explicit(&q->generation, memory_order_relaxed) + 1);
	return atomic_load(q->table);
}

static void leave(struct queue *q)
{
	uint64_t generation = atomic_load_explicit(&q->generation, memory_order_relaxed);

	atomic_store_explicit(&q->generation, generation + 1, memory_order_release);
}

/* The sending half of `batches`. */
static int send_out(struct queue *q, int64_t now)
{
	const struct table *table = enter(q);
	int found = 0;

	if (transmit_blocked(&q->transmit))
		transmit_resume(&q->transmit, table, now);
	if (!transmit_blocked(&q->transmit))
		found = transmit_batch(&q->transmit, table, now);
	leave(q);
	return found;
}

/* One batch each way, and way given to others after what keeps them busy. Returns how many packets were found, or -errno
 * when the TUN is gone. */
static int batches(struct queue *q, int64_t now)
{
	int received = receive_batch(&q->receive, enter(q), now);
	int sent;

	leave(q);
	if (received > 0 && q->look.lone_waits == 0)
		yield_core(&q->yield);
	sent = send_out(q, now);
	if (sent == TRANSMIT_PACKETS)
		yield_core(&q->yield);
	if (received < 0 || sent < 0)
		return received < 0 ? received : sent;
	return received + sent;
}

/* Whether one of the fds has something now. */
static bool ready(struct pollfd *fds, nfds_t count)
{
	static const struct timespec at_once;

	return ppoll(fds, count, &at_once, NULL) > 0;
}

/* Looks for work for so long, giving way to whoever wants the core and brings it back soon. */
static bool look(struct queue *q, struct pollfd *fds, nfds_t count, int64_t now, int64_t for_ns)
{
	for (int64_t end = now + for_ns; now < end && yield_is_cheap(&q->yield, now); now = now_ns()) {
		if (ready(fds, count))
			return true;
		yield_core(&q->yield);
	}
	return false;
}

/* Waits until the queue has work. Returns false when it has none in time, or when the loop has other work. */
static bool linger(struct queue *q, int64_t wait_ns, int loop_fd)
{
	bool stall_ends = q->full_fd >= 0 && wait_ns > STALL_WAIT_NS; /* by then: work, although no fd says so */
	int64_t most_ns = stall_ends ? STALL_WAIT_NS : wait_ns;
	struct timespec timeout = { .tv_sec = most_ns / SECOND_NS, .tv_nsec = most_ns % SECOND_NS };
	struct pollfd fds[WAITS_MAX + 1];
	nfds_t count = waits(q, fds);
	int64_t look_for = look_ns(&q->look), began = look_for ? now_ns() : 0;
	int found;

	if (wait_ns <= 0)
		return false;
	if (look_for && look(q, fds, count, began, look_for)) {
		look_learn(&q->look, true, 0);
		return true;
	}
	fds[count] = (struct pollfd){ .fd = loop_fd, .events = POLLIN }; /* poll(2) passes over a negative fd */
	found = ppoll(fds, count + 1, &timeout, NULL);
	if (look_for)
		look_learn(&q->look, false, now_ns() - began);
	if (found <= 0)
		return found == 0 && stall_ends;
	for (nfds_t i = 0; i < count; i++)
		if (fds[i].revents)
			return true;
	return false;
}

/* The inner packets of both directions so far. */
static uint64_t packets(const struct queue *q)
{
	return stats_read(q->receive.stats, STAT_rx_received) + stats_read(q->receive.stats, STAT_tx_received);
}

int queue_run(struct queue *q, int64_t budget_ns, int64_t linger_ns, int loop_fd)
{
	int64_t now = now_ns();
	int64_t deadline = now + budget_ns;

	while (now < deadline) {
		int found = batches(q, now);

		if (found < 0)
			return UDPB_TURN_TUN_GONE;
		q->full_fd = transmit_blocked(&q->transmit) ? q->transmit.full_fd : -1;
		if (found == 0) {
			look_count(&q->look, packets(q));
			if (!linger(q, linger_ns, loop_fd))
				return UDPB_TURN_IDLE;
		}
		now = now_ns();
	}
	return UDPB_TURN_BUDGET;
}

void queue_take(struct queue *q)
{
	unpark(q);
}

int queue_give(struct queue *q, int outcome)
{
	int error;

	if (outcome == UDPB_TURN_TUN_GONE) {
		arm_timer(q, 0); /* the set stays without the fds: a dead TUN cannot keep the event loop awake */
		return outcome;
	}
	error = park(q);
	return error ? error : outcome;
}

int queue_turn(struct queue *q, int64_t budget_ns, int64_t linger_ns, int loop_fd)
{
	queue_take(q);
	return queue_give(q, queue_run(q, budget_ns, linger_ns, loop_fd));
}

void queue_drain(struct queue *q)
{
	static const struct timespec wait = { .tv_nsec = DRAIN_WAIT_NS };

	while (transmit_blocked(&q->transmit)) {
		struct pollfd room = { .fd = q->transmit.full_fd, .events = POLLOUT };
		const struct table *table;

		(void)ppoll(&room, 1, &wait, NULL);
		table = enter(q);
		transmit_resume(&q->transmit, table, now_ns());
		leave(q);
	}
	q->full_fd = -1;
}

int queue_flush(struct queue *q)
{
	unpark(q);
	queue_drain(q);
	return park(q);
}

void queue_warm(struct queue *q)
{
	volatile uint8_t *arena = q->arena;

	for (size_t at = 0; at < ARENA_BYTES; at += PAGE_BYTES)
		arena[at] = 0;
}
