/* queue_lab: one queue of a dataplane on a real TUN and real sockets, in a namespace of the test's own.
 *
 * Owns the devices and sockets of a scenario, and the check of the law after each turn. The underlay is loopback, where
 * we are 127.0.0.1 and the peer is 127.0.0.2, unless a test brings another.
 */
#ifndef QUEUE_LAB_H
#define QUEUE_LAB_H

#include <poll.h>
#include <time.h>

#include "netns.h"
#include "rig.h"

#define LOCAL 0x7f000001
#define NEIGHBOUR 0x7f000002
#define POD_PORT 5555
#define MS 1000000LL
#define BUDGET_NS (2000 * MS) /* never used up */

static struct {
	struct udpb *u;
	int tun, udp, peer; /* `peer`: the other node's socket */
	int pod;            /* a program's socket, on flannel0's address */
} lab;

static inline int64_t clock_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * 1000000000LL + now.tv_nsec;
}

static inline int udp_socket(uint32_t address, uint16_t port)
{
	struct sockaddr_in in = {
		.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(address)};
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	CHECK(bind(fd, (struct sockaddr *)&in, sizeof(in)) == 0);
	return fd;
}

static inline bool send_to(int fd, uint32_t address, uint16_t port, const void *bytes, size_t length)
{
	struct sockaddr_in in = {
		.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(address)};

	return sendto(fd, bytes, length, 0, (struct sockaddr *)&in, sizeof(in)) == (ssize_t)length;
}

/* Opens queue 0 with the underlay address `local`; 10.0.2.0/24 is `neighbour`'s. */
static inline void open_lab(uint32_t local, uint32_t neighbour)
{
	struct udpb_config config = rig_config(UDPB_SOURCE_SUBNET);
	struct udpb_route routes[] = {
		{.net = {10, 0, 2}, .peer_address_be = htonl(neighbour), .peer_port_be = htons(RIG_PORT), 4, 24},
		{.net = {10, 0, 0, 1}, .version = 4, .prefix_bits = 32},
	};

	lab.tun = netns_tun("test0", IFF_TUN | IFF_VNET_HDR);
	CHECK(lab.tun >= 0);
	netns_address("test0", TUN_ADDRESS, 0xffff0000);
	lab.udp = udp_socket(local, RIG_PORT);
	lab.peer = neighbour == NEIGHBOUR ? udp_socket(neighbour, RIG_PORT) : -1;
	lab.pod = udp_socket(TUN_ADDRESS, POD_PORT);
	CHECK(udpb_new(&config, &lab.u) == 0);
	CHECK(udpb_publish(lab.u, routes, 2) == 0);
	CHECK(udpb_queue_fd(lab.u, 0) == -EINVAL);
	CHECK(udpb_queue_open(lab.u, 0, lab.tun, lab.udp) == 0);
	CHECK(udpb_queue_open(lab.u, 0, lab.tun, lab.udp) == -EINVAL); /* it is open */
	CHECK(udpb_queue_fd(lab.u, 0) >= 0);
	CHECK(udpb_queue_offloads(lab.u, 0) & UDPB_OFFLOAD_CSUM);
}

static inline uint64_t counter(enum stat_id id)
{
	uint64_t values[STAT_COUNT];

	CHECK(udpb_read_counters(lab.u, values, STAT_COUNT) == 0);
	return values[id];
}

static inline void check_law(void)
{
	uint64_t values[STAT_COUNT];

	CHECK(udpb_read_counters(lab.u, values, STAT_COUNT) == 0);
	CHECK(law_holds(values, UDPB_TX, udpb_in_flight(lab.u)) && law_holds(values, UDPB_RX, 0));
}

static inline int turn(int64_t budget_ns, int64_t linger_ns, int loop_fd)
{
	int result = udpb_turn(lab.u, 0, budget_ns, linger_ns, loop_fd);

	check_law();
	return result;
}

/* Whether the queue's epoll fd says that a turn is due, within so long. */
static inline bool is_due(int timeout_ms)
{
	struct pollfd fd = {.fd = udpb_queue_fd(lab.u, 0), .events = POLLIN};

	return poll(&fd, 1, timeout_ms) == 1 && (fd.revents & POLLIN);
}

static inline void close_lab(void)
{
	udpb_queue_close(lab.u, 0);
	CHECK(udpb_queue_fd(lab.u, 0) == -EINVAL && udpb_turn(lab.u, 0, MS, 0, -1) == -EINVAL);
	check_law(); /* the counters outlive the queue */
	udpb_free(lab.u);
	close(lab.tun);
	close(lab.udp);
	close(lab.pod);
	if (lab.peer >= 0)
		close(lab.peer);
}

/* Takes what waits in a socket; returns how many datagrams there were, the last in `bytes`. */
static inline uint32_t drain(int fd, uint8_t *bytes, size_t room, ssize_t *length)
{
	uint32_t count = 0;
	ssize_t got;

	while ((got = recv(fd, bytes, room, 0)) >= 0) {
		*length = got;
		count++;
	}
	return count;
}

#endif
