/* test_steer: which queue and which socket a packet goes to: flows are spread, and what belongs together stays together.
 *
 * The queues are those of a real TUN, chosen by the program of steer.c in the kernel; the sockets are the fake's.
 */
#include "inner.h"
#include "netns.h"
#include "steer.h"
#include "transmit_rig.h"

#define QUEUES 4
#define ROUNDS 200
#define FRAGMENT_MORE 0x2000
#define FRAGMENTS 3

static struct bench bench;
static uint8_t packet[INNER_ROOM];

/* Fragment `index` of a TCP packet without DF; what would be the ports of a whole one is whatever the data is. */
static size_t make_fragment(uint32_t index, uint8_t protocol)
{
	uint32_t fragment = index * 104 / 8 | (index + 1 < FRAGMENTS ? FRAGMENT_MORE : 0);
	size_t length = make_inner(packet, OURS(5), THEIRS(2, 7), protocol, fragment, 104);

	fill_random(packet + 20, length - 20);
	return length;
}

/* A whole TCP packet of some flow. */
static size_t make_whole(uint16_t port)
{
	size_t length = make_inner(packet, OURS(5), THEIRS(2, 7), 6, 0, 104);

	put_16(packet + 20, port);
	put_16(packet + 22, 80);
	return length;
}

/* ---- queues ---- */

static struct {
	int tun[QUEUES], sender;
} lab;

static void open_queues(void)
{
	for (int i = 0; i < QUEUES; i++) {
		lab.tun[i] = netns_tun("steer0", IFF_TUN | IFF_MULTI_QUEUE);
		CHECK(lab.tun[i] >= 0);
	}
	CHECK(steer_attach(lab.tun[0]) == 0);
	netns_address("steer0", TUN_ADDRESS, 0xffff0000);
	lab.sender = socket(AF_INET, SOCK_RAW | SOCK_CLOEXEC, IPPROTO_RAW);
	CHECK(lab.sender >= 0);
}

/* Sends the packet through the TUN; the queue it is found in. */
static int queue_of(size_t length)
{
	struct sockaddr_in to = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(THEIRS(2, 7))};
	uint8_t bytes[2048];

	CHECK(sendto(lab.sender, packet, length, 0, (struct sockaddr *)&to, sizeof(to)) == (ssize_t)length);
	for (int i = 0; i < QUEUES; i++) {
		ssize_t got = read(lab.tun[i], bytes, sizeof(bytes));

		if (got > 0) {
			CHECK((size_t)got == length && !memcmp(bytes + 20, packet + 20, length - 20));
			return i;
		}
	}
	CHECK(false);
	return -1;
}

static void test_queues(void)
{
	uint32_t used = 0;

	open_queues();
	for (int round = 0; round < ROUNDS; round++) {
		uint8_t protocol = round % 2 ? 6 : 17;
		int first = queue_of(make_fragment(0, protocol));

		for (uint32_t i = 1; i < FRAGMENTS; i++)
			CHECK(queue_of(make_fragment(i, protocol)) == first);
	}
	for (uint16_t port = 1; port < ROUNDS; port++) {
		int queue = queue_of(make_whole(port));

		CHECK(queue_of(make_whole(port)) == queue);
		used |= 1U << queue;
	}
	CHECK(used == (1U << QUEUES) - 1); /* they are spread over all */
	for (int i = 0; i < QUEUES; i++)
		close(lab.tun[i]);
	close(lab.sender);
}

/* ---- sockets ---- */

static const struct udp_io *socket_of(size_t length)
{
	feed(packet, length);
	CHECK(bench_batch(&bench) == 1);
	return bench.transmit.packets[0].udp;
}

static void test_sockets(void)
{
	struct udp_io second;
	const struct udp_io *used[2] = {NULL, NULL};

	bench_open(&bench);
	second = bench.rig.udp;
	CHECK(transmit_add_socket(&bench.transmit, &second) == 0);
	for (int round = 0; round < ROUNDS / 2; round++) {
		uint8_t protocol = round % 2 ? 6 : 17;
		const struct udp_io *first = socket_of(make_fragment(0, protocol));

		for (uint32_t i = 1; i < FRAGMENTS; i++)
			CHECK(socket_of(make_fragment(i, protocol)) == first);
	}
	for (uint16_t port = 1; port < ROUNDS; port++) {
		const struct udp_io *socket = socket_of(make_whole(port));

		CHECK(socket_of(make_whole(port)) == socket);
		used[socket == &second] = socket;
	}
	CHECK(used[0] && used[1]);
	bench_close(&bench);
}

int main(void)
{
	test_sockets();
	netns_enter_or_skip();
	test_queues();
	return check_done();
}
