/* test_udp_io: real sockets: what asking for a path's MTU leaves behind, and what strangers can do to it. The underlay
 * is loopback, with an MTU of 1500. */
#include "queue_lab.h"
#include "udp_io.h"

#define TOO_LONG_BYTES 1473 /* with the outer headers one more than fits */

static struct udp_io shared, beside;

static void open_sockets(void)
{
	struct ifreq narrow = {.ifr_mtu = 1500};

	CHECK(netns_request("lo", SIOCSIFMTU, &narrow) == 0);
	CHECK(udp_io_open(&shared, udp_socket(LOCAL, 0), 0) == 0);
	CHECK(udp_io_open_beside(&beside, &shared, 1 << 20) == 0);
}

static void close_sockets(void)
{
	close(shared.fd);
	close(beside.fd);
}

/* What is said of the path to an address. */
static int ask_about(const struct udp_io *io, uint32_t address)
{
	static uint8_t bytes[TOO_LONG_BYTES];
	struct sockaddr_in to = {
		.sin_family = AF_INET, .sin_port = htons(RIG_PORT), .sin_addr.s_addr = htonl(address)};
	struct iovec whole = {.iov_base = bytes, .iov_len = sizeof(bytes)};
	struct msghdr message = {
		.msg_name = &to, .msg_namelen = sizeof(to), .msg_iov = &whole, .msg_iovlen = 1};
	union udp_io_control control;

	udp_io_set_about(&message, &control, (struct udp_io_about){.source_be = io->source_be});
	return udp_io_ask(io, &message);
}

static int ask(const struct udp_io *io)
{
	return ask_about(io, NEIGHBOUR);
}

static void set_errors(const struct udp_io *io, int on)
{
	CHECK(setsockopt(io->fd, IPPROTO_IP, IP_RECVERR, &on, sizeof(on)) == 0);
}

static int errors(const struct udp_io *io)
{
	socklen_t length = sizeof(int);
	int on = -1;

	CHECK(getsockopt(io->fd, IPPROTO_IP, IP_RECVERR, &on, &length) == 0);
	return on;
}

/* Queues share the sockets of further source ports. Where two of them ask at once, one finds errors queued already, which
 * is the other's doing: they must not stay so. Nobody reads them, and each is the next send's. */
static void test_asked_by_two_at_once(void)
{
	open_sockets();
	CHECK(ask(&shared) == 1500 && errors(&shared) == 0);
	CHECK(ask(&beside) == 1500 && errors(&beside) == 1);
	set_errors(&shared, 1); /* what the other has done by now */
	set_errors(&beside, 0);
	CHECK(ask(&shared) == 1500 && errors(&shared) == 0);
	CHECK(ask(&beside) == 1500 && errors(&beside) == 1);
	close_sockets();
}

/* ... and the one does not take what is said to the other, of the path to another peer, for an answer. */
static void test_asked_about_two_paths_at_once(void)
{
	int tun = netns_tun("narrow0", IFF_TUN);
	struct ifreq narrow = {.ifr_mtu = 1300};

	netns_address("narrow0", TUN_ADDRESS, 0xffffff00);
	CHECK(netns_request("narrow0", SIOCSIFMTU, &narrow) == 0);
	CHECK(udp_io_open(&shared, udp_socket(TUN_ADDRESS, 0), 0) == 0);
	CHECK(ask_about(&shared, TUN_ADDRESS + 1) == 1300 && ask(&shared) == 1500);
	set_errors(&shared, 1);
	CHECK(!send_to(shared.fd, TUN_ADDRESS + 1, RIG_PORT, (uint8_t[TOO_LONG_BYTES]){0}, TOO_LONG_BYTES)); /* not read yet */
	CHECK(ask(&shared) == 1500);
	close(shared.fd);
	close(tun);
}

static bool has_received(const struct udp_io *io)
{
	uint8_t byte;

	return recv(io->fd, &byte, sizeof(byte), MSG_PEEK) >= 0;
}

/* Sends so many datagrams to a socket's port; to a full one, too. */
static void flood(const struct udp_io *io, uint32_t count)
{
	int stranger = udp_socket(NEIGHBOUR, 0);
	struct sockaddr_in to;
	socklen_t length = sizeof(to);

	CHECK(getsockname(io->fd, (struct sockaddr *)&to, &length) == 0);
	while (count-- > 0)
		CHECK(send_to(stranger, ntohl(to.sin_addr.s_addr), ntohs(to.sin_port), "", 1));
	close(stranger);
}

/* Nobody reads what comes to a socket that only sends: it takes no memory, nor the room of what tells a path's MTU. */
static void test_strangers_send_to_senders(void)
{
	int least = 0;

	open_sockets();
	CHECK(udp_io_open_sender(&shared, shared.fd, 0) == 0);
	CHECK(setsockopt(shared.fd, SOL_SOCKET, SO_RCVBUF, &least, sizeof(least)) == 0); /* full after a few */
	flood(&shared, 100);
	flood(&beside, 100);
	CHECK(!has_received(&shared) && !has_received(&beside));
	CHECK(ask(&shared) == 1500 && ask(&beside) == 1500);
	close_sockets();
}

int main(void)
{
	netns_enter_or_skip();
	test_asked_by_two_at_once();
	test_asked_about_two_paths_at_once();
	test_strangers_send_to_senders();
	return check_done();
}
