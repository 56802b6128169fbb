/* test_queue_full: the turn and its epoll set while the socket takes no more.
 *
 * Loopback never fills a socket, so the underlay is a TAP device: datagrams wait, and are charged to the socket, until
 * somebody answers for the peer's MAC address.
 */
#include <pthread.h>
#include <sys/eventfd.h>

#include "queue_lab.h"

/* Answers the TAP's question for the peer's MAC address. Returns whether it asked. */
static bool answer_arp(int tap)
{
	uint8_t frame[2048], answer[42], mac[6] = {2, 0, 0, 0, 0, 9};

	for (ssize_t got; (got = read(tap, frame, sizeof(frame))) > 0;) {
		if (got < 42 || get_16(frame + 12) != 0x0806 || get_16(frame + 20) != 1)
			continue;
		memcpy(answer, frame, 42); /* back to its sender, who is now the target */
		memcpy(answer, frame + 6, 6);
		memcpy(answer + 6, mac, 6);
		put_16(answer + 20, 2);
		memcpy(answer + 22, mac, 6);
		memcpy(answer + 28, frame + 38, 4);
		memcpy(answer + 32, frame + 22, 10);
		return CHECK(write(tap, answer, sizeof(answer)) == 42);
	}
	return false;
}

/* Fills the socket; returns the TAP. More packets wait in flannel0 than the socket takes. */
static int open_full_lab(void)
{
	int tap = netns_tun("under0", IFF_TAP), bytes = 1, budget = 100;
	uint8_t payload[1000] = {0};

	CHECK(tap >= 0);
	netns_address("under0", LOCAL_ADDRESS, 0xffffff00);
	open_lab(LOCAL_ADDRESS, PEER(2));
	CHECK(setsockopt(lab.udp, SOL_SOCKET, SO_SNDBUF, &bytes, sizeof(bytes)) == 0);
	for (int i = 0; i < 100; i++)
		CHECK(send_to(lab.pod, THEIRS(2, 7), POD_PORT, payload, sizeof(payload)));
	CHECK(turn(BUDGET_NS, 0, -1) == UDPB_TURN_IDLE);
	CHECK(udpb_in_flight(lab.u) > 0);
	CHECK(counter(STAT_tx_delivered) > 0 && counter(STAT_tx_delivered) < 100);
	while (budget-- > 0 && is_due(0)) /* the socket may have had room once more */
		turn(BUDGET_NS, 0, -1);
	CHECK(!is_due(0)); /* although flannel0 has more: it is not watched now */
	return tap;
}

static void test_full_socket_drains(void)
{
	int tap = open_full_lab();
	int64_t begun = clock_ns();

	CHECK(answer_arp(tap));
	CHECK(is_due(50)); /* the socket's room, before the timer */
	while (counter(STAT_tx_delivered) < 100 && clock_ns() - begun < 5000 * MS)
		if (is_due(10))
			turn(BUDGET_NS, 0, -1);
	CHECK(counter(STAT_tx_delivered) == 100 && udpb_in_flight(lab.u) == 0);
	CHECK(turn(BUDGET_NS, 0, -1) == UDPB_TURN_IDLE && !is_due(150)); /* nor does the timer run any more */
	close_lab();
	close(tap);
}

static void test_full_socket_stalls(void)
{
	int tap = open_full_lab();
	uint32_t waiting = udpb_in_flight(lab.u);
	int64_t begun = clock_ns();

	CHECK(is_due(2000)); /* the timer */
	CHECK(clock_ns() - begun > 50 * MS);
	turn(BUDGET_NS, 0, -1);
	CHECK(counter(STAT_tx_drop_socket_full) >= waiting);
	CHECK(answer_arp(tap) || counter(STAT_tx_drop_socket_full) == 100);
	while (is_due(300)) /* the rest leaves, or is dropped batch by batch */
		turn(BUDGET_NS, 0, -1);
	CHECK(udpb_in_flight(lab.u) == 0 && counter(STAT_tx_received) == 100);
	close_lab();
	close(tap);
}

/* A turn that stays as long as a worker's ends a stall by itself. */
static void test_full_socket_stalls_within_a_turn(void)
{
	int tap = open_full_lab();
	uint32_t waiting = udpb_in_flight(lab.u);
	int64_t begun = clock_ns();

	turn(300 * MS, 500 * MS, -1);
	CHECK(counter(STAT_tx_drop_socket_full) >= waiting);
	CHECK(clock_ns() - begun < 1500 * MS); /* the budget, and one wait at most */
	close_lab();
	close(tap);
}

static void test_closed_while_full(void)
{
	int tap = open_full_lab();
	uint32_t waiting = udpb_in_flight(lab.u);

	udpb_queue_close(lab.u, 0);
	CHECK(counter(STAT_tx_drop_closed) == waiting && udpb_in_flight(lab.u) == 0);
	close_lab();
	close(tap);
}

/* Before a queue changes hands: what the socket refused leaves first, and nothing more is read. */
static void test_flushed_while_full(void)
{
	int tap = open_full_lab();
	uint64_t received = counter(STAT_tx_received);

	CHECK(answer_arp(tap));
	CHECK(udpb_queue_flush(lab.u, 0) == 0);
	check_law();
	CHECK(udpb_in_flight(lab.u) == 0 && counter(STAT_tx_delivered) == received);
	CHECK(counter(STAT_tx_received) == received && received < 100);
	CHECK(is_due(1000)); /* the rest waits in flannel0, and the queue can go on */
	CHECK(udpb_queue_flush(lab.u, 1) == -EINVAL);
	close_lab();
	close(tap);
}

static void *run_worker(void *stop_fd)
{
	return (void *)(intptr_t)udpb_run(lab.u, 0, *(int *)stop_fd);
}

/* So it is where a worker passes its queue on: what it has taken from flannel0 is sent before the next one may read. */
static void test_passed_on_while_full(void)
{
	int tap = open_full_lab(), stop = eventfd(1, EFD_CLOEXEC), next = eventfd(0, EFD_CLOEXEC);
	struct pollfd passed = {.fd = next, .events = POLLIN};
	pthread_t worker;
	void *result;

	CHECK(udpb_queue_pass_on(lab.u, 0, next) == 0);
	CHECK(pthread_create(&worker, NULL, run_worker, &stop) == 0);
	CHECK(poll(&passed, 1, 20) == 0); /* not while something waits; a stall is five times as long */
	CHECK(answer_arp(tap));
	CHECK(poll(&passed, 1, 5000) == 1);
	CHECK(pthread_join(worker, &result) == 0 && (intptr_t)result == 0);
	CHECK(udpb_in_flight(lab.u) == 0 && counter(STAT_tx_drop_socket_full) == 0);
	CHECK(counter(STAT_tx_delivered) == counter(STAT_tx_received));
	close_lab();
	close(tap);
	close(stop);
	close(next);
}

static void test_flush_ends_with_the_stall(void)
{
	int tap = open_full_lab();
	uint32_t waiting = udpb_in_flight(lab.u);

	CHECK(udpb_queue_flush(lab.u, 0) == 0);
	check_law();
	CHECK(udpb_in_flight(lab.u) == 0 && counter(STAT_tx_drop_socket_full) == waiting);
	close_lab();
	close(tap);
}

int main(void)
{
	netns_enter_or_skip();
	test_full_socket_drains();
	test_full_socket_stalls();
	test_full_socket_stalls_within_a_turn();
	test_closed_while_full();
	test_flushed_while_full();
	test_passed_on_while_full();
	test_flush_ends_with_the_stall();
	return check_done();
}
