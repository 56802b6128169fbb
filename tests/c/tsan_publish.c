/* tsan_publish: two queues turn while tables are published as fast as can be, and others read counters and peers.
 *
 * The queue is compiled in with fakes in place of its two fds, so that packets never run out and no privilege is needed;
 * everything between them is real. Each publication has a port number of its own, which all its peers but one have. So
 * whoever looks at two peers sees whether they are of one table, and a queue whether tables come in order; the thread
 * sanitizer sees a table or a peer that is used after it was freed.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "check.h"
#include "inner.h"
#include "stats.h"
#include "tun_io.h"
#include "udp_io.h"
#include "udpb.h"

static int feed_tun_open(struct tun_io *io, int fd, uint32_t off);
static int feed_udp_open(struct udp_io *io, int fd, uint32_t off);

#define tun_io_open feed_tun_open
#define udp_io_open feed_udp_open
#include "queue.c"

#define QUEUES 2
#define PUBLICATIONS 2000
#define FIRST_PORT 1000
#define STEADY_PORT 8285 /* of the peer that stands in every table */
#define TURN_NS 1000000LL

/* Peers 192.0.2.n have 10.0.n.0/24. Numbers 2 and 3 change their port with every table, number 4 never does. */
#define PEER_ADDRESS(n) (0xc0000200U + (n))
#define STEADY 4
#define PACKETS 3

/* What a queue's fake fds know. A queue's own thread alone touches it. */
struct feed {
	uint8_t out[PACKETS][64], in[PACKETS][64]; /* packets to the peers, and from them */
	size_t length;
	int tun_fd, udp_fd, stop_fd;
	uint32_t next;         /* round robin, with a pause now and then */
	uint32_t last_port;    /* of the table that the last datagrams went by */
	uint64_t sent, written, broken;
};

static struct feed feeds[QUEUES];
static struct udpb *u;
static atomic_bool stop, done; /* the queues; the readers */

static struct feed *feed_of(int fd)
{
	for (uint32_t i = 0; i < QUEUES; i++)
		if (feeds[i].tun_fd == fd || feeds[i].udp_fd == fd)
			return &feeds[i];
	abort();
}

static ssize_t feed_read(int fd, void *buffer, size_t capacity)
{
	struct feed *f = feed_of(fd);
	uint32_t next = f->next++ % 20;

	if (next == 19 || capacity < TUN_IO_HEADER_BYTES + f->length) {
		errno = EAGAIN;
		return -1;
	}
	memset(buffer, 0, TUN_IO_HEADER_BYTES);
	memcpy((uint8_t *)buffer + TUN_IO_HEADER_BYTES, f->out[next % PACKETS], f->length);
	return (ssize_t)(TUN_IO_HEADER_BYTES + f->length);
}

static ssize_t feed_write(int fd, const struct iovec *iov, int count)
{
	ssize_t length = 0;

	for (int i = 0; i < count; i++)
		length += (ssize_t)iov[i].iov_len;
	feed_of(fd)->written++;
	return length;
}

static ssize_t feed_write_one(int fd, const void *buffer, size_t bytes)
{
	struct iovec iov = {.iov_base = (void *)(uintptr_t)buffer, .iov_len = bytes};

	return feed_write(fd, &iov, 1);
}

/* All that is sent at once goes by one table, and by none older than what was sent before. */
static int feed_send(int fd, struct mmsghdr *messages, unsigned int count, int flags)
{
	struct feed *f = feed_of(fd);
	uint32_t port = 0;

	(void)flags;
	for (unsigned int i = 0; i < count; i++) {
		const struct sockaddr_in *to = messages[i].msg_hdr.msg_name;
		uint32_t its_port = ntohs(to->sin_port), n = ntohl(to->sin_addr.s_addr) - PEER_ADDRESS(0);

		f->sent++;
		if (n == STEADY ? its_port != STEADY_PORT : n != 2 && n != 3)
			f->broken++;
		if (n == STEADY)
			continue;
		f->broken += its_port < f->last_port || (port && its_port != port);
		port = f->last_port = its_port;
	}
	return (int)count;
}

static int feed_receive(int fd, struct mmsghdr *messages, unsigned int count, int flags, struct timespec *wait)
{
	struct feed *f = feed_of(fd);
	unsigned int wanted = count < PACKETS ? count : PACKETS;

	(void)flags;
	(void)wait;
	for (unsigned int i = 0; i < wanted; i++) {
		struct sockaddr_in from = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(PEER_ADDRESS(2 + i))};

		memcpy(messages[i].msg_hdr.msg_name, &from, sizeof(from));
		memcpy(messages[i].msg_hdr.msg_iov->iov_base, f->in[i], f->length);
		messages[i].msg_hdr.msg_controllen = 0;
		messages[i].msg_len = (unsigned int)f->length;
	}
	return (int)wanted;
}

static int feed_tun_open(struct tun_io *io, int fd, uint32_t off)
{
	(void)off;
	*io = (struct tun_io){.fd = fd, .read = feed_read, .writev = feed_write, .write = feed_write_one};
	return 0;
}

static int feed_queued(int fd)
{
	(void)fd;
	return 0;
}

static int feed_udp_open(struct udp_io *io, int fd, uint32_t off)
{
	(void)off;
	*io = (struct udp_io){
		.fd = fd, .segments_max = 1, .recvmmsg = feed_receive, .sendmmsg = feed_send, .queued = feed_queued};
	return 0;
}

static void open_queue(uint32_t number)
{
	struct feed *f = &feeds[number];

	f->tun_fd = eventfd(0, EFD_CLOEXEC); /* only to be watched; never ready */
	f->udp_fd = eventfd(0, EFD_CLOEXEC);
	f->stop_fd = eventfd(0, EFD_CLOEXEC);
	for (uint32_t i = 0; i < PACKETS; i++) {
		f->length = make_udp(f->out[i], 0x0a000105, 0x0a000007 + (2 + i) * 256, 32);
		make_udp(f->in[i], 0x0a000007 + (2 + i) * 256, 0x0a000105, 32);
	}
	CHECK(udpb_queue_open(u, number, f->tun_fd, f->udp_fd) == 0);
}

static void publish(uint16_t port)
{
	struct udpb_route routes[PACKETS + 1] = {{.net = {10, 0, 1}, .version = 4, .prefix_bits = 24}};

	for (uint8_t i = 0; i < PACKETS; i++)
		routes[i + 1] = (struct udpb_route){.net = {10, 0, (uint8_t)(2 + i)},
						    .peer_address_be = htonl(PEER_ADDRESS(2U + i)),
						    .peer_port_be = htons(2 + i == STEADY ? STEADY_PORT : port),
						    .version = 4,
						    .prefix_bits = 24};
	if (udpb_publish(u, routes, PACKETS + 1) != 0)
		abort();
}

/* The first queue goes turn by turn, as from an event loop, the others as a worker does. */
static void *turn_queue(void *number)
{
	uint32_t queue = (uint32_t)(uintptr_t)number;
	int result = UDPB_TURN_BUDGET;

	if (queue > 0)
		result = udpb_run(u, queue, feeds[queue].stop_fd);
	while (queue == 0 && result == UDPB_TURN_BUDGET && !atomic_load(&stop))
		result = udpb_turn(u, queue, TURN_NS, 0, -1);
	udpb_queue_close(u, queue); /* under the eyes of the readers */
	return (void *)(intptr_t)result;
}

/* Returns how often what was read made no sense. */
static void *read_all(void *unused)
{
	uint64_t before[STAT_COUNT] = {0}, values[STAT_COUNT];
	uintptr_t broken = 0;
	uint16_t newest = 0;

	(void)unused;
	while (!atomic_load(&done)) {
		struct udpb_peer peers[PACKETS];
		struct udpb_error last;

		broken += udpb_read_counters(u, values, STAT_COUNT) != 0;
		for (uint32_t i = 0; i < STAT_COUNT; i++) {
			broken += values[i] < before[i];
			before[i] = values[i];
		}
		broken += udpb_read_peers(u, peers, PACKETS) != PACKETS;
		broken += peers[0].port_be != peers[1].port_be || ntohs(peers[0].port_be) < newest;
		broken += peers[2].port_be != htons(STEADY_PORT);
		newest = ntohs(peers[0].port_be);
		udpb_last_error(u, &last);
		broken += udpb_in_flight(u) > 0 || last.error != 0;
	}
	return (void *)broken;
}

int main(void)
{
	struct udpb_config config = {.source_check = UDPB_SOURCE_SUBNET};
	uint64_t values[STAT_COUNT], sent = 0, written = 0;
	struct udpb_peer peers[PACKETS];
	pthread_t queues[QUEUES], reader;
	void *result;

	CHECK(udpb_new(&config, &u) == 0);
	publish(FIRST_PORT);
	for (uint32_t i = 0; i < QUEUES; i++)
		open_queue(i);
	for (uintptr_t i = 0; i < QUEUES; i++)
		CHECK(pthread_create(&queues[i], NULL, turn_queue, (void *)i) == 0);
	CHECK(pthread_create(&reader, NULL, read_all, NULL) == 0);
	for (uint16_t i = 1; i <= PUBLICATIONS; i++) {
		publish(FIRST_PORT + i);
		if (i % 64 == 0)
			usleep(1000); /* on a machine with few cores the queues get their turn too */
	}
	usleep(20000);
	atomic_store(&stop, true);
	for (uint32_t i = 0; i < QUEUES; i++) {
		CHECK(eventfd_write(feeds[i].stop_fd, 1) == 0);
		CHECK(pthread_join(queues[i], &result) == 0);
		CHECK((intptr_t)result == (i == 0 ? UDPB_TURN_BUDGET : 0));
		CHECK(feeds[i].broken == 0);
		CHECK(feeds[i].last_port == FIRST_PORT + PUBLICATIONS); /* the last table arrived */
		sent += feeds[i].sent;
		written += feeds[i].written;
	}
	atomic_store(&done, true);
	CHECK(pthread_join(reader, &result) == 0);
	CHECK((uintptr_t)result == 0);

	/* Nothing was lost: every packet had a peer in every table. */
	CHECK(udpb_read_counters(u, values, STAT_COUNT) == 0);
	CHECK(sent > 0 && values[STAT_tx_received] == sent && values[STAT_tx_delivered] == sent);
	CHECK(written > 0 && values[STAT_rx_received] == written && values[STAT_rx_delivered] == written);
	CHECK(udpb_read_peers(u, peers, PACKETS) == PACKETS);
	CHECK(peers[2].rx_packets == written / PACKETS); /* the steady one's counters outlived every table */
	CHECK(peers[2].tx_packets > 0 && peers[2].tx_packets < sent);
	CHECK(udpb_reclaim(u) == 0);
	printf("%d publications, %lu packets sent, %lu written\n", PUBLICATIONS, (unsigned long)sent,
	       (unsigned long)written);
	udpb_free(u);
	for (uint32_t i = 0; i < QUEUES; i++) {
		close(feeds[i].tun_fd);
		close(feeds[i].udp_fd);
		close(feeds[i].stop_fd);
	}
	return check_done();
}
