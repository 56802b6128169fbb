/* test_queue: the turn, its epoll set and the worker, with packets going both ways. See also test_queue_full. */
#include <pthread.h>
#include <sys/eventfd.h>

#include "queue_lab.h"

static void test_both_ways(void)
{
	uint8_t bytes[2048], inner[INNER_ROOM];
	struct udpb_peer peer;
	ssize_t length = 0;

	open_lab(LOCAL, NEIGHBOUR);
	CHECK(turn(BUDGET_NS, 0, -1) == UDPB_TURN_IDLE); /* takes what the device itself had to say, if anything */
	CHECK(!is_due(0) && turn(BUDGET_NS, 0, -1) == UDPB_TURN_IDLE);

	CHECK(send_to(lab.pod, THEIRS(2, 7), POD_PORT, "to the peer", 11));
	CHECK(is_due(1000) && turn(BUDGET_NS, 0, -1) == UDPB_TURN_IDLE && !is_due(0));
	CHECK(drain(lab.peer, bytes, sizeof(bytes), &length) == 1 && length == 39);
	CHECK(get_32(bytes + 12) == TUN_ADDRESS && get_32(bytes + 16) == THEIRS(2, 7));
	CHECK(sum_16(0, bytes, 20) == 0xffff && transport_sum(bytes, 39) == 0xffff);
	CHECK(!memcmp(bytes + 28, "to the peer", 11));

	length = (ssize_t)make_udp(inner, THEIRS(2, 7), TUN_ADDRESS, 9);
	put_16(inner + 22, POD_PORT);
	memcpy(inner + 28, "to us all", 9);
	finish_transport(inner, (size_t)length, 20, 17);
	CHECK(send_to(lab.peer, LOCAL, RIG_PORT, inner, (size_t)length));
	CHECK(is_due(1000) && turn(BUDGET_NS, 0, -1) == UDPB_TURN_IDLE && !is_due(0));
	CHECK(drain(lab.pod, bytes, sizeof(bytes), &length) == 1 && length == 9 && !memcmp(bytes, "to us all", 9));

	CHECK(udpb_read_peers(lab.u, &peer, 1) == 1);
	CHECK(peer.tx_packets == 1 && peer.tx_bytes == 39 && peer.rx_packets == 1 && peer.rx_bytes == 37);
	CHECK(peer.silent_ns >= 0 && peer.silent_ns < 60000 * MS);
	close_lab();
}

/* Many packets are moved within one turn, and a small budget ends it early. */
static void test_budget(void)
{
	uint32_t turns = 0, received = 0;
	uint8_t bytes[2048];
	ssize_t length;
	int result;

	open_lab(LOCAL, NEIGHBOUR);
	for (int i = 0; i < 400; i++)
		CHECK(send_to(lab.pod, THEIRS(2, 7), POD_PORT, &i, sizeof(i)));
	CHECK(turn(0, 0, -1) == UDPB_TURN_BUDGET && counter(STAT_tx_received) == 0);
	do {
		result = turn(1, 0, -1); /* one batch a turn */
		received += drain(lab.peer, bytes, sizeof(bytes), &length);
		turns++;
	} while (result == UDPB_TURN_BUDGET && CHECK(turns < 10000));
	CHECK(result == UDPB_TURN_IDLE && turns > 1);
	CHECK(received == 400 && counter(STAT_tx_delivered) >= 400);
	close_lab();
}

/* The linger waits for the next packet, and ends when it comes or when the loop has other work. */
static void test_linger(void)
{
	int loop[2];
	int64_t begun;

	open_lab(LOCAL, NEIGHBOUR);
	turn(BUDGET_NS, 0, -1);
	begun = clock_ns();
	CHECK(turn(BUDGET_NS, 30 * MS, -1) == UDPB_TURN_IDLE);
	CHECK(clock_ns() - begun >= 30 * MS);

	CHECK(pipe2(loop, O_CLOEXEC | O_NONBLOCK) == 0);
	begun = clock_ns();
	CHECK(turn(BUDGET_NS, 30 * MS, loop[0]) == UDPB_TURN_IDLE); /* nothing in it: as before */
	CHECK(clock_ns() - begun >= 30 * MS);
	CHECK(write(loop[1], "x", 1) == 1);
	begun = clock_ns();
	CHECK(turn(BUDGET_NS, 10000 * MS, loop[0]) == UDPB_TURN_IDLE);
	CHECK(clock_ns() - begun < 5000 * MS);

	/* The queue's own packet comes first, although the loop has work. */
	CHECK(send_to(lab.pod, THEIRS(2, 7), POD_PORT, "x", 1));
	CHECK(turn(BUDGET_NS, 10000 * MS, loop[0]) == UDPB_TURN_IDLE);
	CHECK(counter(STAT_tx_delivered) == 1);
	close(loop[0]);
	close(loop[1]);
	close_lab();
}

static void test_tun_down_and_deleted(void)
{
	uint8_t inner[INNER_ROOM];
	size_t length = make_udp(inner, THEIRS(2, 7), TUN_ADDRESS, 9);

	open_lab(LOCAL, NEIGHBOUR);
	netns_set_up("test0", false);
	CHECK(send_to(lab.peer, LOCAL, RIG_PORT, inner, length));
	CHECK(turn(BUDGET_NS, 0, -1) == UDPB_TURN_IDLE);
	CHECK(counter(STAT_rx_drop_tun_down) == 1);
	netns_set_up("test0", true);
	CHECK(send_to(lab.peer, LOCAL, RIG_PORT, inner, length));
	CHECK(turn(BUDGET_NS, 0, -1) == UDPB_TURN_IDLE && counter(STAT_rx_delivered) == 1);

	CHECK(netns_delete("test0") == 0);
	CHECK(is_due(1000)); /* somebody must be told ... */
	CHECK(turn(BUDGET_NS, 0, -1) == UDPB_TURN_TUN_GONE);
	CHECK(!is_due(50)); /* ... once */
	CHECK(send_to(lab.peer, LOCAL, RIG_PORT, inner, length));
	CHECK(!is_due(50));
	CHECK(turn(BUDGET_NS, 0, -1) == UDPB_TURN_TUN_GONE && !is_due(0));
	close_lab();
}

/* ---- a worker ---- */

static void *run_worker(void *stop_fd)
{
	return (void *)(intptr_t)udpb_run(lab.u, 0, *(int *)stop_fd);
}

/* Waits for a datagram in a socket, for no more than a few seconds. */
static bool arrives(int fd)
{
	struct pollfd wait = {.fd = fd, .events = POLLIN};

	return poll(&wait, 1, 5000) == 1;
}

/* A worker sleeps until there is something, moves it, and ends when it is told to or has no device any more. */
static void test_worker(bool deleted)
{
	uint8_t inner[INNER_ROOM], bytes[2048];
	size_t length = make_udp(inner, THEIRS(2, 7), TUN_ADDRESS, 9);
	int stop = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	pthread_t worker;
	ssize_t got;
	void *result;

	open_lab(LOCAL, NEIGHBOUR);
	put_16(inner + 22, POD_PORT);
	finish_transport(inner, length, 20, 17);
	CHECK(pthread_create(&worker, NULL, run_worker, &stop) == 0);
	for (int i = 0; i < 20; i++) {
		CHECK(send_to(lab.pod, THEIRS(2, 7), POD_PORT, &i, sizeof(i)));
		CHECK(arrives(lab.peer) && drain(lab.peer, bytes, sizeof(bytes), &got) == 1);
		CHECK(send_to(lab.peer, LOCAL, RIG_PORT, inner, length));
		CHECK(arrives(lab.pod) && drain(lab.pod, bytes, sizeof(bytes), &got) == 1);
	}
	if (deleted)
		CHECK(netns_delete("test0") == 0);
	else
		CHECK(eventfd_write(stop, 1) == 0);
	CHECK(pthread_join(worker, &result) == 0);
	CHECK((intptr_t)result == (deleted ? UDPB_TURN_TUN_GONE : 0));
	CHECK(counter(STAT_tx_delivered) == 20 && counter(STAT_rx_delivered) == 20);
	CHECK(udpb_run(lab.u, 0, stop) == (deleted ? UDPB_TURN_TUN_GONE : 0)); /* stopped before it began */
	close_lab();
	close(stop);
}

/* What is switched off is not used, and nothing else goes with it. Kernels before 6.2 know no super-packets of UDP on a
 * TUN, all others are old. */
static void test_offloads_switched_off(void)
{
	const uint32_t since_6_2 = UDPB_OFFLOAD_USO | UDPB_OFFLOAD_UDP_COALESCE;
	struct udpb_config config = rig_config(UDPB_SOURCE_SUBNET);
	int tun = netns_tun("test1", IFF_TUN | IFF_VNET_HDR), udp = udp_socket(LOCAL, RIG_PORT);
	uint32_t all = 0;

	for (uint32_t off = 0; off <= UDPB_OFFLOAD_UDP_GRO; off = off ? off << 1 : UDPB_OFFLOAD_TSO) {
		uint32_t used;

		config.offloads_off = off;
		CHECK(udpb_new(&config, &lab.u) == 0);
		CHECK(udpb_queue_open(lab.u, 0, tun, udp) == 0);
		used = udpb_queue_offloads(lab.u, 0);
		if (off == 0)
			all = used;
		CHECK(used == (all & ~off));
		CHECK(all & off || off == 0 || (off & since_6_2 && !(all & since_6_2)));
		udpb_free(lab.u);
	}
	close(tun);
	close(udp);
}

int main(void)
{
	netns_enter_or_skip();
	test_offloads_switched_off();
	test_both_ways();
	test_budget();
	test_linger();
	test_tun_down_and_deleted();
	test_worker(false);
	test_worker(true);
	return check_done();
}
