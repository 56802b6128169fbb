/* test_pass_on: a queue changes hands between two dataplanes that hold the same fds, as between two processes. */
#include <pthread.h>
#include <sys/eventfd.h>

#include "queue_lab.h"

#define HANDOVERS 40
#define STREAM 20 /* packets between two handovers, in flannel0 before the first of them */

/* A thread that turns queue 0 of one of the two. */
struct turner {
	struct udpb *u;
	pthread_t thread;
	int ready, go, stop;
};

static void *turn_when(void *it)
{
	struct turner *t = it;

	return (void *)(intptr_t)udpb_run_when(t->u, 0, t->ready, t->go, t->stop);
}

static bool readable(int fd, int timeout_ms)
{
	struct pollfd wait = {.fd = fd, .events = POLLIN};

	return poll(&wait, 1, timeout_ms) == 1;
}

/* Opens the queue, whoever turns the same fds now, and has a thread wait for its turn. */
static void hold(struct turner *t, struct udpb *u)
{
	*t = (struct turner){.u = u, .ready = eventfd(0, EFD_CLOEXEC), .go = eventfd(0, EFD_CLOEXEC), .stop = eventfd(0, EFD_CLOEXEC)};
	CHECK(pthread_create(&t->thread, NULL, turn_when, t) == 0);
	CHECK(readable(t->ready, 5000));
}

static int joined(struct turner *t)
{
	void *result;

	CHECK(pthread_join(t->thread, &result) == 0);
	close(t->ready);
	close(t->go);
	close(t->stop);
	return (int)(intptr_t)result;
}

static int end(struct turner *t)
{
	CHECK(eventfd_write(t->stop, 1) == 0);
	return joined(t);
}

static struct udpb *another(void)
{
	struct udpb_config config = rig_config(UDPB_SOURCE_SUBNET);
	struct udpb_route route = {
		.net = {10, 0, 2}, .peer_address_be = htonl(NEIGHBOUR), .peer_port_be = htons(RIG_PORT), 4, 24};
	struct udpb *u;

	CHECK(udpb_new(&config, &u) == 0 && udpb_publish(u, &route, 1) == 0);
	return u;
}

static uint64_t moved(const struct udpb *u)
{
	uint64_t values[STAT_COUNT];

	CHECK(udpb_read_counters(u, values, STAT_COUNT) == 0);
	return values[STAT_tx_delivered];
}

/* Every packet of the pod arrives at the peer, once and in order, whoever has turned the queue. */
static bool all_arrive(uint32_t *expected, uint32_t end)
{
	uint8_t bytes[2048];
	bool ordered = true;

	while (*expected < end && readable(lab.peer, 5000)) {
		uint32_t number;

		ordered = ordered && recv(lab.peer, bytes, sizeof(bytes), 0) == 32;
		memcpy(&number, bytes + 28, sizeof(number));
		ordered = ordered && number == (*expected)++;
	}
	return ordered && *expected == end && !readable(lab.peer, 0);
}

static void test_back_and_forth(void)
{
	struct udpb *planes[2] = {another(), another()};
	struct turner turners[2];
	uint32_t sent = 0, came = 0;

	open_lab(LOCAL, NEIGHBOUR);
	udpb_queue_close(lab.u, 0);
	CHECK(udpb_queue_open(planes[0], 0, lab.tun, lab.udp) == 0);
	hold(&turners[0], planes[0]);
	CHECK(eventfd_write(turners[0].go, 1) == 0);
	for (int i = 0; i < HANDOVERS; i++) {
		struct turner *old = &turners[i % 2], *new = &turners[(i + 1) % 2];

		CHECK(udpb_queue_open(new->u = planes[(i + 1) % 2], 0, lab.tun, lab.udp) == 0);
		hold(new, new->u);
		for (int k = 0; k < STREAM; k++, sent++)
			CHECK(send_to(lab.pod, THEIRS(2, 7), POD_PORT, &sent, sizeof(sent)));
		CHECK(udpb_queue_pass_on(old->u, 0, new->go) == 0);
		CHECK(end(old) == 0);
		udpb_queue_close(old->u, 0);
		for (int k = 0; k < STREAM; k++, sent++)
			CHECK(send_to(lab.pod, THEIRS(2, 7), POD_PORT, &sent, sizeof(sent)));
		CHECK(all_arrive(&came, sent));
	}
	CHECK(end(&turners[HANDOVERS % 2]) == 0);
	CHECK(moved(planes[0]) + moved(planes[1]) == sent && moved(planes[0]) > 0 && moved(planes[1]) > 0);
	udpb_free(planes[0]);
	udpb_free(planes[1]);
	close_lab();
}

/* Who is stopped before its turn has come has moved nothing. */
static void test_not_wanted_after_all(void)
{
	struct udpb *u = another();
	struct turner turner;
	uint8_t bytes[64];
	ssize_t got;

	open_lab(LOCAL, NEIGHBOUR);
	CHECK(udpb_queue_open(u, 0, lab.tun, lab.udp) == 0);
	hold(&turner, u);
	CHECK(send_to(lab.pod, THEIRS(2, 7), POD_PORT, "x", 1));
	CHECK(end(&turner) == 0 && moved(u) == 0);
	CHECK(turn(BUDGET_NS, 0, -1) == UDPB_TURN_IDLE);
	CHECK(drain(lab.peer, bytes, sizeof(bytes), &got) == 1);
	udpb_free(u);
	close_lab();
}

/* There is nothing to go on with: nobody is woken for it. */
static void test_a_dead_device_is_not_passed_on(void)
{
	int next = eventfd(0, EFD_CLOEXEC);
	struct turner turner;

	open_lab(LOCAL, NEIGHBOUR);
	CHECK(udpb_queue_pass_on(lab.u, 1, next) == -EINVAL && udpb_queue_pass_on(lab.u, 0, next) == 0);
	hold(&turner, lab.u);
	CHECK(netns_delete("test0") == 0);
	CHECK(eventfd_write(turner.go, 1) == 0);
	CHECK(joined(&turner) == UDPB_TURN_TUN_GONE && !readable(next, 0));
	close(next);
	close_lab();
}

int main(void)
{
	netns_enter_or_skip();
	test_back_and_forth();
	test_not_wanted_after_all();
	test_a_dead_device_is_not_passed_on();
	return check_done();
}
