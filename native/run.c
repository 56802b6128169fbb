/* run: who turns a queue: an event loop turn by turn, or a thread for its life. Behind udpb_turn and udpb_run in udpb.h.
 *
 * Theory of operation. A queue whose fds are another process's, too, changes hands between two such threads alone. The one
 * that is to go on has all that it needs, its filter too, and waits for an eventfd. The one that turns the queue is told
 * which that is, and then to stop: at a batch's end, with nothing left unsent, it writes it. So packets wait for one wake-up,
 * and no interpreter stands between. Never do both turn: that would let packets overtake each other.
 */
#include <errno.h>
#include <poll.h>
#include <unistd.h>

#include "dataplane.h"
#include "guard.h"

#define RUN_BUDGET_NS 5000000LL /* a worker that is told to stop in the midst of a load takes so long at most */
#define RUN_LINGER_NS 3600000000000LL /* a worker has nothing else to do */

/* What a thread does for its life. */
struct life {
	struct queue *queue;
	int ready_fd, go_fd; /* -1: it begins at once */
	int stop_fd;
};

static struct queue *opened(const struct udpb *u, uint32_t queue)
{
	return queue < UDPB_QUEUES_MAX ? u->queues[queue] : NULL;
}

/* An eventfd takes a one unless it is full of them: then who waits for it is woken already. */
static void tell(int event_fd)
{
	static const uint64_t one = 1;

	(void)!write(event_fd, &one, sizeof(one));
}

/* Says that it waits, and waits. Whether it is to turn the queue. */
static bool may_begin(const struct life *life)
{
	struct pollfd fds[] = { { .fd = life->go_fd, .events = POLLIN }, { .fd = life->stop_fd, .events = POLLIN } };

	tell(life->ready_fd);
	while (ppoll(fds, 2, NULL, NULL) < 0) /* a signal is the only reason */
		continue;
	return fds[1].revents == 0;
}

static int live(void *about)
{
	static const struct timespec at_once;
	const struct life *life = about;
	struct pollfd stop = { .fd = life->stop_fd, .events = POLLIN };
	int result, next_fd;

	if (life->go_fd >= 0 && !may_begin(life))
		return UDPB_TURN_IDLE;
	do {
		/* An idle turn ends when stop_fd is readable, a busy one when its budget is used up. A poll that a signal
		 * interrupted says nothing. */
		result = queue_run(life->queue, RUN_BUDGET_NS, RUN_LINGER_NS, life->stop_fd);
	} while (result != UDPB_TURN_TUN_GONE && ppoll(&stop, 1, &at_once, NULL) < 1);
	next_fd = atomic_load(&life->queue->next_fd);
	if (result != UDPB_TURN_TUN_GONE && next_fd >= 0) {
		queue_drain(life->queue);
		tell(next_fd);
	}
	return result;
}

static int run(struct udpb *u, uint32_t queue, struct life *life)
{
	int result;

	life->queue = opened(u, queue);
	if (!life->queue)
		return -EINVAL;
	if (life->go_fd >= 0)
		queue_warm(life->queue);
	queue_take(life->queue);
	result = u->config.guard ? guard_run(live, life, &u->guards[queue]) : live(life);
	result = queue_give(life->queue, result);
	return result == UDPB_TURN_IDLE || result == UDPB_TURN_BUDGET ? 0 : result;
}

int udpb_run(struct udpb *u, uint32_t queue, int stop_fd)
{
	struct life life = { .ready_fd = -1, .go_fd = -1, .stop_fd = stop_fd };

	return run(u, queue, &life);
}

int udpb_run_when(struct udpb *u, uint32_t queue, int ready_fd, int go_fd, int stop_fd)
{
	struct life life = { .ready_fd = ready_fd, .go_fd = go_fd, .stop_fd = stop_fd };

	return run(u, queue, &life);
}

int udpb_queue_pass_on(struct udpb *u, uint32_t queue, int next_fd)
{
	struct queue *q = opened(u, queue);

	if (!q)
		return -EINVAL;
	atomic_store(&q->next_fd, next_fd);
	return 0;
}

int udpb_turn(struct udpb *u, uint32_t queue, int64_t budget_ns, int64_t linger_ns, int loop_fd)
{
	struct queue *q = opened(u, queue);

	return q ? queue_turn(q, budget_ns, linger_ns, loop_fd) : -EINVAL;
}

int udpb_guard(const struct udpb *u, uint32_t queue)
{
	return queue < UDPB_QUEUES_MAX ? atomic_load(&u->guards[queue]) : -EINVAL;
}

uint64_t udpb_calls_refused(int *last_call)
{
	return guard_refused(last_call);
}
