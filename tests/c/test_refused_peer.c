/* A peer whose every datagram the kernel refuses, as behind a blackhole route: it costs the others neither packets nor
 * their turn. How often the kernel is asked for it grows with its packets, not with their square.
 */
#include "transmit_rig.h"

enum { REFUSED = 2, WELL = 3, SEGMENTS = 100, SEGMENT_BYTES = 100 };

static struct bench bench;
static uint8_t packet[28 + SEGMENTS * SEGMENT_BYTES];
static int error;
static uint32_t asked;    /* how often the kernel was */
static uint32_t composed; /* of these, with messages that were composed for it: the first of them is at its place */
static int (*send_them)(int, struct mmsghdr *, unsigned int, int);

/* The kernel's sendmmsg: an error of the first message is told, of a later one only that the ones before it went. */
static int refuse_one(int fd, struct mmsghdr *messages, unsigned int count, int flags)
{
	unsigned int well = 0;

	asked++;
	composed += messages == bench.transmit.messages;
	while (well < count &&
	       ((struct sockaddr_in *)messages[well].msg_hdr.msg_name)->sin_addr.s_addr != htonl(PEER(REFUSED)))
		well++;
	return well > 0 ? send_them(fd, messages, well, flags) : fake_fail(error);
}

static void open_bench(int with, uint32_t segments_max)
{
	bench_open(&bench);
	send_them = bench.rig.udp.sendmmsg;
	bench.rig.udp.sendmmsg = refuse_one;
	bench.rig.udp.segments_max = segments_max;
	error = with;
	asked = composed = 0;
}

static void feed_super(void)
{
	struct virtio_net_hdr header = { .flags = VIRTIO_NET_HDR_F_NEEDS_CSUM, .gso_type = VIRTIO_NET_HDR_GSO_UDP_L4,
					 .gso_size = SEGMENT_BYTES, .csum_start = 20, .csum_offset = 6 };

	feed_with(packet, make_udp(packet, OURS(5), THEIRS(REFUSED, 7), SEGMENTS * SEGMENT_BYTES), header);
	fake.tun_in.items[fake.tun_in.count - 1].packets = SEGMENTS;
}

static void test_it_costs_others_nothing(int with, uint32_t segments_max)
{
	uint32_t batches = 0, supers = 8;

	open_bench(with, segments_max);
	for (uint32_t i = 0; i < supers; i++) {
		feed_super();
		feed_udp(&bench, WELL, 1);
	}
	while (bench_batch(&bench) > 0)
		batches++;
	CHECK(fake.udp_out.count == supers && bench_stat(&bench, STAT_tx_delivered) == supers);
	CHECK(atomic_load(&rig_peer(&bench.rig, WELL)->tx_packets) == supers);
	/* One call for each message, however few datagrams it has, one for what lies between, and what is tried in vain. */
	CHECK(asked <= 2 * supers * (SEGMENTS / segments_max + 1) + 8 * TRANSMIT_ALONE * batches);
	/* As often as all is too much for once, and as something is tried in vain. */
	CHECK(composed <= supers * SEGMENTS / TRANSMIT_DATAGRAMS + 1 + 8 * TRANSMIT_ALONE * batches);
	bench.rig.udp.sendmmsg = send_them;
	bench_release(&bench);
}

/* What was refused for a while is asked for again. */
static void test_it_is_tried_again(void)
{
	open_bench(EINVAL, UDP_IO_SEGMENTS_MAX);
	feed_super();
	while (bench_batch(&bench) > 0)
		;
	CHECK(peer_refuses_all(rig_peer(&bench.rig, REFUSED), bench.rig.now_ns));
	bench.rig.now_ns += TRANSMIT_ALONE_NS;
	CHECK(!peer_refuses_all(rig_peer(&bench.rig, REFUSED), bench.rig.now_ns));
	bench.rig.udp.sendmmsg = send_them;
	feed_super();
	while (bench_batch(&bench) > 0)
		;
	CHECK(bench_stat(&bench, STAT_tx_delivered) == SEGMENTS);
	CHECK(bench.rig.udp.segments_max == UDP_IO_SEGMENTS_MAX);
	bench_release(&bench);
}

int main(void)
{
	static const int errors[] = { EINVAL, EIO, EOPNOTSUPP, EHOSTUNREACH, ENETUNREACH, EPERM, EACCES };

	for (size_t i = 0; i < sizeof(errors) / sizeof(errors[0]); i++) {
		test_it_costs_others_nothing(errors[i], UDP_IO_SEGMENTS_MAX);
		test_it_costs_others_nothing(errors[i], 1);
	}
	test_it_is_tried_again();
	return check_done();
}
