/* test_transmit: what is let out, to whom, and what is answered when there is nobody.
 *
 * A full socket and narrow paths have tests of their own: test_transmit_socket and test_transmit_mtu.
 */
#include "transmit_rig.h"

static struct bench bench;

static void test_delivered(void)
{
	uint8_t to[16], from[16];

	bench_open(&bench);
	rig_ipv6(from, 1, 5);
	rig_ipv6(to, 2, 7);
	feed(bench.packet, make_udp(bench.packet, OURS(5), THEIRS(2, 7), 0));
	feed(bench.packet, make_tcp(bench.packet, OURS(5), THEIRS(3, 7), 1401));
	feed(bench.packet, make_icmp(bench.packet, OURS(5), THEIRS(2, 255), 8, 56));
	feed(bench.packet, make_udp6(bench.packet, from, to, 1000));
	feed(bench.packet, make_udp(bench.packet, OURS(5), THEIRS(3, 0), 65507 - 28)); /* the longest there is */
	CHECK(bench_batch(&bench) == 5);
	CHECK(sent_is(0, 0, 2) && sent_is(1, 1, 3) && sent_is(2, 2, 2) && sent_is(3, 3, 2) && sent_is(4, 4, 3));
	CHECK(fake.udp_out.count == 5 && fake.tun_out.count == 0);
	CHECK(bench_stat(&bench, STAT_tx_delivered) == 5 && bench_stat(&bench, STAT_tx_datagrams) == 5);
	CHECK(bench_stat(&bench, STAT_tx_bytes) == 28 + 1441 + 84 + 1048 + 65507);
	CHECK(atomic_load(&rig_peer(&bench.rig, 2)->tx_packets) == 3);
	CHECK(atomic_load(&rig_peer(&bench.rig, 2)->tx_bytes) == 28 + 84 + 1048);
	CHECK(atomic_load(&rig_peer(&bench.rig, 3)->tx_packets) == 2);
	CHECK(bench_batch(&bench) == 0);
	bench_close(&bench);
}

static void test_longest_prefix_wins(void)
{
	static const struct rig_route routes[] = {
		{THEIRS(0, 0), 16, 4, PEER(2), RIG_PORT},
		{THEIRS(2, 128), 25, 4, PEER(3), RIG_PORT + 1},
		{THEIRS(2, 129), 32, 4, 0, 0},
	};

	bench_open(&bench);
	rig_publish(&bench.rig, routes, 3);
	feed(bench.packet, make_udp(bench.packet, OURS(5), THEIRS(2, 127), 8));
	feed(bench.packet, make_udp(bench.packet, OURS(5), THEIRS(2, 128), 8));
	feed(bench.packet, make_udp(bench.packet, OURS(5), THEIRS(2, 129), 8));
	CHECK(bench_batch(&bench) == 3);
	CHECK(sent_is(0, 0, 2) && sent_is(1, 1, 3) && fake.udp_out.count == 2);
	CHECK(bench_stat(&bench, STAT_tx_drop_no_route) == 1);
	bench_close(&bench);
}

/* More waits than a batch holds: it is read and sent a batch at a time. */
static void test_batches(void)
{
	bench_open(&bench);
	feed_udp(&bench, 2, TRANSMIT_PACKETS + 8);
	CHECK(bench_batch(&bench) == TRANSMIT_PACKETS);
	CHECK(fake.udp_out.count == TRANSMIT_PACKETS && fake.udp_out.calls == 1);
	CHECK(bench_batch(&bench) == 8);
	CHECK(fake.udp_out.count == TRANSMIT_PACKETS + 8 && fake.udp_out.calls == 2);
	for (int i = 0; i < 5; i++) /* large ones fill it sooner */
		feed(bench.packet, make_udp(bench.packet, OURS(5), THEIRS(2, 7), 65507 - 28));
	CHECK(bench_batch(&bench) == 2 && bench_batch(&bench) == 2 && bench_batch(&bench) == 1);
	CHECK(bench_stat(&bench, STAT_tx_delivered) == TRANSMIT_PACKETS + 13);
	bench_close(&bench);
}

/* Each fault has its counter, nothing of the packet is sent, and the good one behind it is. */
static void test_malformed(void)
{
	static const struct {
		enum stat_id counter;
		size_t at, cut; /* the byte to change, or how many to keep */
		uint8_t value;
	} cases[] = {
		{STAT_tx_drop_short, 0, 19, 0x45},          {STAT_tx_drop_short, 0, 1, 0x45},
		{STAT_tx_drop_short, 0, 0, 0x45},           {STAT_tx_drop_version, 0, 60, 0x55},
		{STAT_tx_drop_version, 0, 60, 0x05},        {STAT_tx_drop_header_length, 0, 60, 0x44},
		{STAT_tx_drop_header_length, 0, 56, 0x4f},  {STAT_tx_drop_length, 0, 59, 0x45},
		{STAT_tx_drop_length, 0, 61, 0x45},         {STAT_tx_drop_length, 0, 60, 0x65},
		{STAT_tx_drop_short, 0, 39, 0x65},          {STAT_tx_drop_header_checksum, 8, 60, 1},
		{STAT_tx_drop_header_checksum, 19, 60, 77},
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		bench_open(&bench);
		memset(bench.packet, 0, 100);
		CHECK(make_udp(bench.packet, OURS(5), THEIRS(2, 7), 32) == 60);
		bench.packet[cases[i].at] = cases[i].value;
		feed(bench.packet, cases[i].cut);
		feed_udp(&bench, 2, 1);
		CHECK(bench_batch(&bench) == 2);
		CHECK(bench_stat(&bench, cases[i].counter) == 1);
		CHECK(bench_stat(&bench, STAT_tx_delivered) == 1 && fake.udp_out.count == 1 && sent_is(0, 1, 2));
		CHECK(fake.tun_out.count == 0);
		bench_close(&bench);
	}
}

/* The kernel leaves the checksum to us: the field then holds the pseudo-header's sum. */
static void test_partial_checksum(void)
{
	static const uint8_t protocols[] = {6, 17};
	uint8_t to[16], from[16], whole[1500];

	bench_open(&bench);
	rig_ipv6(from, 1, 5);
	rig_ipv6(to, 2, 7);
	for (uint32_t i = 0; i < 4; i++) {
		uint8_t protocol = i < 2 ? protocols[i] : 17;
		uint32_t start = i < 2 ? 20 : 40, offset = (uint32_t)checksum_offset(protocol);
		size_t length = i < 2 ? make_inner(bench.packet, OURS(5), THEIRS(2, 7), protocol, 0, 100 + i)
				      : make_udp6(bench.packet, from, to, 100 + i);
		struct virtio_net_hdr header = {.flags = VIRTIO_NET_HDR_F_NEEDS_CSUM,
						.csum_start = (uint16_t)start,
						.csum_offset = (uint16_t)offset};
		uint32_t payload_sum = sum_16(0, bench.packet + start, length - start);

		/* All sums to 0xffff: the pseudo-header's is what the rest leaves. */
		memcpy(whole, bench.packet, length);
		put_16(bench.packet + start + offset, 0xffff - payload_sum);
		feed_with(bench.packet, length, header);
		CHECK(bench_batch(&bench) == 1);
		CHECK(fake.udp_out.count == i + 1 && fake.udp_out.items[i].length == length);
		CHECK(!memcmp(fake.udp_out.items[i].bytes, whole, length));
	}
	/* A checksum that was valid already is none of our business. */
	feed_with(bench.packet, make_udp(bench.packet, OURS(5), THEIRS(2, 7), 9),
		  (struct virtio_net_hdr){.flags = VIRTIO_NET_HDR_F_DATA_VALID});
	CHECK(bench_batch(&bench) == 1 && sent_is(4, 4, 2));
	CHECK(bench_stat(&bench, STAT_tx_delivered) == 5);
	bench_close(&bench);
}

static void test_offloads_not_negotiated(void)
{
	static const struct virtio_net_hdr headers[] = {
		{.gso_type = VIRTIO_NET_HDR_GSO_UDP, .gso_size = 8},
		{.gso_type = VIRTIO_NET_HDR_GSO_TCPV4 | VIRTIO_NET_HDR_GSO_ECN}, /* and of size 0 */
		{.flags = VIRTIO_NET_HDR_F_NEEDS_CSUM, .csum_start = 59, .csum_offset = 0},
		{.flags = VIRTIO_NET_HDR_F_NEEDS_CSUM, .csum_start = 20, .csum_offset = 7},
		{.flags = VIRTIO_NET_HDR_F_NEEDS_CSUM, .csum_start = 65535, .csum_offset = 65534},
	};
	uint32_t count = sizeof(headers) / sizeof(*headers);

	bench_open(&bench);
	for (uint32_t i = 0; i < count; i++)
		feed_with(bench.packet, make_udp(bench.packet, OURS(5), THEIRS(2, 7), 32), headers[i]);
	CHECK(bench_batch(&bench) == (int)count);
	CHECK(bench_stat(&bench, STAT_tx_drop_offload) == count);
	CHECK(fake.udp_out.count == 0 && fake.tun_out.count == 0);
	bench_close(&bench);
}

static void test_no_route(void)
{
	static const uint32_t destinations[] = {THEIRS(9, 9), OURS(77), TUN_ADDRESS, 0x08080808};

	bench_open(&bench);
	for (uint32_t i = 0; i < 4; i++) {
		feed(bench.packet, make_tcp(bench.packet, OURS(5), destinations[i], 500 * i));
		CHECK(bench_batch(&bench) == 1);
		CHECK(fake.tun_out.count == i + 1 && written_is_icmp(i, i, 1, 0));
	}
	CHECK(fake.udp_out.count == 0);
	CHECK(bench_stat(&bench, STAT_tx_drop_no_route) == 4 && bench_stat(&bench, STAT_tx_icmp_unreachable) == 4);
	bench_close(&bench);
}

/* What must not be answered is dropped all the same. IPv6 gets no answer, and no mention. */
static void test_no_answer(void)
{
	uint8_t to[16], from[16];

	bench_open(&bench);
	rig_ipv6(from, 1, 5);
	rig_ipv6(to, 9, 7);
	feed(bench.packet, make_icmp(bench.packet, OURS(5), THEIRS(9, 9), 3, 28));
	feed(bench.packet, make_icmp(bench.packet, OURS(5), THEIRS(9, 9), 11, 28));
	feed(bench.packet, make_inner(bench.packet, OURS(5), THEIRS(9, 9), 17, 1, 64)); /* a later fragment */
	feed(bench.packet, make_udp(bench.packet, OURS(5), 0xe00000fb, 64));           /* multicast */
	feed(bench.packet, make_udp(bench.packet, OURS(5), 0xffffffff, 64));
	feed(bench.packet, make_udp(bench.packet, 0, THEIRS(9, 9), 64));
	CHECK(bench_batch(&bench) == 6);
	CHECK(bench_stat(&bench, STAT_tx_icmp_suppressed) == 6);
	feed(bench.packet, make_udp6(bench.packet, from, to, 64));
	CHECK(bench_batch(&bench) == 1);
	CHECK(bench_stat(&bench, STAT_tx_icmp_suppressed) == 6);
	CHECK(bench_stat(&bench, STAT_tx_drop_no_route) == 5 && bench_stat(&bench, STAT_tx_drop_multicast) == 2);
	CHECK(fake.tun_out.count == 0 && fake.udp_out.count == 0);
	/* An echo request and a first fragment may be answered. */
	feed(bench.packet, make_icmp(bench.packet, OURS(5), THEIRS(9, 9), 8, 28));
	feed(bench.packet, make_inner(bench.packet, OURS(5), THEIRS(9, 9), 17, MORE_FRAGMENTS, 64));
	CHECK(bench_batch(&bench) == 2);
	CHECK(written_is_icmp(0, 7, 1, 0) && written_is_icmp(1, 8, 1, 0));
	bench_close(&bench);
}

static void feed_unroutable(uint32_t count)
{
	while (count-- > 0)
		feed(bench.packet, make_udp(bench.packet, OURS(5), THEIRS(9, 9), 8));
	bench_drain(&bench);
}

static void test_rate_limit(void)
{
	bench_open(&bench);
	feed_unroutable(60); /* a burst of 50 */
	CHECK(bench_stat(&bench, STAT_tx_icmp_unreachable) == 50 && bench_stat(&bench, STAT_tx_icmp_limited) == 10);
	bench.rig.now_ns += MS_NS(9);
	feed_unroutable(1);
	CHECK(bench_stat(&bench, STAT_tx_icmp_unreachable) == 50);
	bench.rig.now_ns += MS_NS(1); /* then one every 10 ms */
	feed_unroutable(2);
	CHECK(bench_stat(&bench, STAT_tx_icmp_unreachable) == 51);
	bench.rig.now_ns += MS_NS(200);
	feed_unroutable(30);
	CHECK(bench_stat(&bench, STAT_tx_icmp_unreachable) == 71);

	/* The other bucket is full: nobody's path MTU discovery suffers. */
	fake.path_mtu = 1400;
	fake.udp_longest_bytes = 1372;
	feed(bench.packet, make_tcp(bench.packet, OURS(5), THEIRS(2, 7), 1400));
	bench_drain(&bench);
	CHECK(bench_stat(&bench, STAT_tx_icmp_too_big) == 1);

	bench.rig.now_ns += SECONDS_NS(60); /* saves up no more than a burst */
	feed_unroutable(60);
	CHECK(bench_stat(&bench, STAT_tx_icmp_unreachable) == 121);
	CHECK(fake.tun_out.count == 122);
	CHECK(bench_stat(&bench, STAT_tx_icmp_limited) == 10 + 1 + 1 + 10 + 10);
	CHECK(bench_stat(&bench, STAT_tx_drop_no_route) == 60 + 1 + 2 + 30 + 60);
	bench_close(&bench);
}

static void test_icmp_refused(void)
{
	bench_open(&bench);
	fake_fault(&fake.tun_out, 0, EINTR, 2); /* tried again */
	fake_fault(&fake.tun_out, 1, EIO, 1);
	feed_unroutable(2);
	CHECK(bench_stat(&bench, STAT_tx_icmp_unreachable) == 1 && bench_stat(&bench, STAT_tx_icmp_failed) == 1);
	CHECK(fake.tun_out.count == 1);
	bench_close(&bench);
}

/* What had been read when the TUN broke is sent all the same. */
static void test_tun_errors(void)
{
	static const struct {
		int error, result;
	} cases[] = {{EBADFD, -EBADFD}, {EFAULT, -EFAULT}, {EBADF, -EBADF}, {-1, -EBADFD}, {EIO, 3}, {EINTR, 5}};

	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		bench_open(&bench);
		feed_udp(&bench, 2, 5);
		fake_fault(&fake.tun_in, 3, cases[i].error, 1);
		CHECK(bench_batch(&bench) == cases[i].result);
		CHECK(fake.udp_out.count == (cases[i].result == 5 ? 5 : 3));
		bench_drain(&bench);
		CHECK(fake.udp_out.count == 5 && sent_is(4, 4, 2));
		bench_close(&bench);
	}
}

int main(void)
{
	test_delivered();
	test_longest_prefix_wins();
	test_batches();
	test_malformed();
	test_partial_checksum();
	test_offloads_not_negotiated();
	test_no_route();
	test_no_answer();
	test_rate_limit();
	test_icmp_refused();
	test_tun_errors();
	return check_done();
}
