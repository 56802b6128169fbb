/* queue: see queue.h.
 *
 * Theory of operation. A turn alternates batches of both directions until neither finds anything, then lingers: it waits
 * a little for the next packet, because to come back through the event loop costs more than to stay. The wait is on the
 * queue's own epoll fd and on the loop's: the loop's has work whenever ours has, so ours is looked at first.
 *
 * Around each pair of batches the generation is odd. A table loaded then stays valid until it is even again; both
 * accesses are sequentially consistent, so a publisher that has swapped the pointer and then reads an even generation
 * knows that the next batch will see its table.
 *
 * While the socket is full the TUN is out of the epoll set (its packets wait in the kernel's ring, which drops and counts
 * what does not fit), the socket is watched for room, and a timer bounds the wait.
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

static int open_fds(struct queue *q, const struct queue_parts *parts)
{
	int error = tun_io_open(&q->tun, parts->tun_fd);

	if (!error)
		error = udp_io_open(&q->udp, parts->udp_fd);
	if (error)
		return error;
	q->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	if (q->epoll_fd < 0)
		return -errno;
	q->timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
	if (q->timer_fd < 0)
		return -errno;
	error = watch(q, EPOLL_CTL_ADD, q->tun.fd, EPOLLIN);
	if (!error)
		error = watch(q, EPOLL_CTL_ADD, q->udp.fd, EPOLLIN);
	if (!error)
		error = watch(q, EPOLL_CTL_ADD, q->timer_fd, EPOLLIN);
	return error;
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
	q->epoll_fd = q->timer_fd = q->full_fd = -1;
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
	error = udp_io_open(extra, udp_fd);
	if (!error)
		error = transmit_add_socket(&q->transmit, extra);
	if (!error)
		q->extra_count++;
	return error;
}

uint32_t queue_offloads(const struct queue *q)
{
	return q->tun.offloads | (q->udp.segments_max > 1 ? UDPB_OFFLOAD_UDP_SEGMENT : 0) |
	       (q->udp.gro ? UDPB_OFFLOAD_UDP_GRO : 0);
}

static void arm_timer(const struct queue *q, int64_t delay_ns)
{
	struct itimerspec when = { .it_value = { .tv_sec = delay_ns / SECOND_NS, .tv_nsec = delay_ns % SECOND_NS } };

	timerfd_settime(q->timer_fd, 0, &when, NULL); /* setting it also takes an expiry back: the fd is not ready any more */
}

/* Makes the epoll set wait for room in a full socket, or (-1) for packets again. */
static int wait_for_room(struct queue *q, int fd)
{
	int error = 0;

	if (fd >= 0) /* a little later than the stall's end, so that one expiry is enough */
		arm_timer(q, TRANSMIT_STALL_NS + SECOND_NS / 1000);
	if (fd == q->full_fd)
		return 0;
	/* A socket that only sends is in the set only while it is full. */
	if (q->full_fd >= 0)
		error = q->full_fd == q->udp.fd ? watch(q, EPOLL_CTL_MOD, q->udp.fd, EPOLLIN)
						: watch(q, EPOLL_CTL_DEL, q->full_fd, 0);
	if (!error && fd >= 0)
		error = fd == q->udp.fd ? watch(q, EPOLL_CTL_MOD, fd, EPOLLIN | EPOLLOUT)
					: watch(q, EPOLL_CTL_ADD, fd, EPOLLOUT);
	if (!error && q->full_fd < 0)
		error = watch(q, EPOLL_CTL_DEL, q->tun.fd, 0);
	if (!error && fd < 0) {
		arm_timer(q, 0);
		error = watch(q, EPOLL_CTL_ADD, q->tun.fd, EPOLLIN);
	}
	q->full_fd = fd;
	return error;
}

/* One batch each way under one table. Returns how many packets were found, or -errno when the TUN is gone. */
static int batches(struct queue *q, int64_t now)
{
	uint64_t generation = atomic_load_explicit(&q->generation, memory_order_relaxed);
	const struct table *table;
	int received, sent = 0;

	atomic_store(&q->generation, generation + 1);
	table = atomic_load(q->table);
	received = receive_batch(&q->receive, table, now);
	if (transmit_blocked(&q->transmit))
		transmit_resume(&q->transmit, table, now);
	if (!transmit_blocked(&q->transmit))
		sent = transmit_batch(&q->transmit, table, now);
	atomic_store_explicit(&q->generation, generation + 2, memory_order_release);
	if (received < 0 || sent < 0)
		return received < 0 ? received : sent;
	return received + sent;
}

/* Waits until the queue has work. Returns 0 when it has none in time, or when the loop has other work. */
static int linger(const struct queue *q, int64_t wait_ns, int loop_fd)
{
	struct timespec timeout = { .tv_sec = wait_ns / SECOND_NS, .tv_nsec = wait_ns % SECOND_NS };
	struct pollfd fds[2] = {
		{ .fd = q->epoll_fd, .events = POLLIN },
		{ .fd = loop_fd, .events = POLLIN }, /* poll(2) passes over a negative fd */
	};

	return wait_ns > 0 && ppoll(fds, 2, &timeout, NULL) > 0 && (fds[0].revents & POLLIN);
}

/* Takes the fds out of the epoll set, so that a dead TUN cannot keep the event loop awake. */
static int retire(struct queue *q)
{
	if (q->full_fd >= 0 && q->full_fd != q->udp.fd)
		epoll_ctl(q->epoll_fd, EPOLL_CTL_DEL, q->full_fd, NULL);
	epoll_ctl(q->epoll_fd, EPOLL_CTL_DEL, q->tun.fd, NULL);
	epoll_ctl(q->epoll_fd, EPOLL_CTL_DEL, q->udp.fd, NULL);
	epoll_ctl(q->epoll_fd, EPOLL_CTL_DEL, q->timer_fd, NULL);
	return UDPB_TURN_TUN_GONE;
}

int queue_turn(struct queue *q, int64_t budget_ns, int64_t linger_ns, int loop_fd)
{
	int64_t now = now_ns();
	int64_t deadline = now + budget_ns;

	while (now < deadline) {
		int found = batches(q, now);
		int error;

		if (found < 0)
			return retire(q);
		if (transmit_blocked(&q->transmit) || q->full_fd >= 0) {
			error = wait_for_room(q, transmit_blocked(&q->transmit) ? q->transmit.full_fd : -1);
			if (error)
				return error;
		}
		if (found == 0 && !linger(q, linger_ns, loop_fd))
			return UDPB_TURN_IDLE;
		now = now_ns();
	}
	return UDPB_TURN_BUDGET;
}
