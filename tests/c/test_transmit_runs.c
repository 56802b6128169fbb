/* test_transmit_runs: super-packets from flannel0 and messages of several datagrams to the socket.
 *
 * What is to arrive is worked out here from what was put in: super-packets are cut by code of the test's own. Then every
 * datagram sent must be one of these, in order and byte for byte.
 */
#include "transmit_rig.h"

static struct bench bench;

static struct {
	uint8_t *bytes;
	size_t length;
	uint32_t n; /* the peer */
} expected[FAKE_ITEMS];
static uint32_t expected_count;

static void open_bench(void)
{
	bench_open(&bench);
	bench.rig.udp.segments_max = UDP_IO_SEGMENTS_MAX;
	expected_count = 0;
}

static void expect(uint32_t n, const uint8_t *bytes, size_t length)
{
	if (!CHECK(expected_count < FAKE_ITEMS))
		return;
	expected[expected_count].bytes = malloc(length);
	memcpy(expected[expected_count].bytes, bytes, length);
	expected[expected_count].length = length;
	expected[expected_count++].n = n;
}

/* Whether what was sent is what was expected, but for `missing` datagrams. */
static bool all_sent_but(uint32_t missing)
{
	uint32_t at = 0;

	for (uint32_t i = 0; i < fake.udp_out.count; i++, at++) {
		const struct fake_item *sent = &fake.udp_out.items[i];

		while (at < expected_count &&
		       (expected[at].length != sent->length || memcmp(expected[at].bytes, sent->bytes, sent->length)))
			at++;
		if (at == expected_count || sent->address.sin_addr.s_addr != htonl(PEER(expected[at].n)))
			return false;
	}
	return fake.udp_out.count + missing == expected_count;
}

static void close_bench(void)
{
	while (expected_count > 0)
		free(expected[--expected_count].bytes);
	bench_close(&bench);
}

/* One packet of `length` bytes to peer n. */
static void feed_plain(uint32_t n, size_t length)
{
	make_udp(bench.packet, OURS(5), THEIRS(n, 7), length - 28);
	feed(bench.packet, length);
	expect(n, bench.packet, length);
}

/* One super-packet to peer n. */
static void feed_super(uint32_t n, uint8_t version, uint8_t protocol, size_t size, size_t payload)
{
	struct virtio_net_hdr header = {.flags = VIRTIO_NET_HDR_F_NEEDS_CSUM,
					.gso_type = protocol == 17 ? VIRTIO_NET_HDR_GSO_UDP_L4
						    : version == 4 ? VIRTIO_NET_HDR_GSO_TCPV4
								   : VIRTIO_NET_HDR_GSO_TCPV6,
					.gso_size = (uint16_t)size,
					.csum_start = version == 4 ? 20 : 40,
					.csum_offset = (uint16_t)checksum_offset(protocol)};
	uint8_t from[16], to[16], segment[2000];
	size_t length;

	rig_ipv6(from, 1, 5);
	rig_ipv6(to, (uint8_t)n, 7);
	if (version == 6) /* only UDP: what differs from IPv4 is the IP header */
		length = make_udp6(bench.packet, from, to, payload);
	else
		length = make_inner(bench.packet, OURS(5), THEIRS(n, 7), protocol, protocol == 6 ? DONT_FRAGMENT : 0, payload);
	for (size_t at = 0; at < payload; at += size)
		expect(n, segment, make_segment(segment, bench.packet, length, header.csum_start, size, at));
	/* The field is to hold the pseudo-header's sum: what the rest leaves to 0xffff. */
	put_16(bench.packet + header.csum_start + header.csum_offset,
	       0xffff - sum_16(0, bench.packet + header.csum_start, length - header.csum_start));
	feed_with(bench.packet, length, header);
	fake_latest(&fake.tun_in)->packets = (uint32_t)((payload + size - 1) / size);
}

static void test_joined(void)
{
	open_bench();
	for (int i = 0; i < 10; i++)
		feed_plain(2, 100);
	CHECK(bench_batch(&bench) == 10);
	CHECK(all_sent_but(0) && fake.udp_messages == 1 && fake.udp_out.calls == 1);
	CHECK(bench_stat(&bench, STAT_tx_messages) == 1 && bench_stat(&bench, STAT_tx_datagrams) == 10);
	CHECK(bench_stat(&bench, STAT_tx_delivered) == 10 && bench_stat(&bench, STAT_tx_bytes) == 1000);
	CHECK(atomic_load(&rig_peer(&bench.rig, 2)->tx_packets) == 10);
	close_bench();
}

/* A shorter one ends a message; a longer one and another peer begin one. */
static void test_where_messages_end(void)
{
	static const struct {
		uint32_t n, length, messages;
	} steps[] = {{2, 100, 1}, {2, 100, 1}, {2, 60, 1},  {2, 60, 2},  {2, 61, 3},
		     {2, 61, 3},  {3, 61, 4},  {2, 61, 5}, {2, 100, 6}, {2, 28, 6}};

	open_bench();
	for (size_t i = 0; i < COUNT(steps); i++)
		feed_plain(steps[i].n, steps[i].length);
	CHECK(bench_batch(&bench) == (int)COUNT(steps));
	CHECK(all_sent_but(0) && fake.udp_messages == steps[COUNT(steps) - 1].messages);
	close_bench();
}

static void test_largest_messages(void)
{
	open_bench();
	for (int i = 0; i < 100; i++) /* no message may be longer than a datagram could be */
		feed_plain(2, 1472);
	CHECK(bench_drain(&bench) == 100 && all_sent_but(0) && fake.udp_messages >= 3);
	feed_super(2, 4, 17, 10, 6000); /* nor have more than so many datagrams */
	CHECK(bench_drain(&bench) == 1 && all_sent_but(0));
	CHECK(bench_stat(&bench, STAT_tx_gso_refused) == 0);
	close_bench();
}

static void test_super_packets(void)
{
	static const size_t payloads[] = {1, 1399, 1400, 1401, 2800, 5000, 65000};

	for (size_t i = 0; i < COUNT(payloads); i++) {
		open_bench();
		feed_super(2, 4, 6, 1400, payloads[i]);
		feed_super(2, 4, 17, 1400, payloads[i]);
		feed_super(2, 6, 17, 1400, payloads[i]);
		feed_plain(3, 500);
		CHECK(bench_drain(&bench) == 4 && all_sent_but(0));
		CHECK(bench_stat(&bench, STAT_tx_reads) == 4 && bench_stat(&bench, STAT_tx_received) == expected_count);
		close_bench();
	}
}

static void test_super_packet_without_a_route(void)
{
	open_bench();
	feed_super(9, 4, 6, 1000, 4500);
	CHECK(bench_batch(&bench) == 1 && bench_stat(&bench, STAT_tx_drop_no_route) == 5);
	CHECK(fake.tun_out.count == 1 && written_is_icmp(0, 0, 1, 0)); /* one answer is enough */
	CHECK(all_sent_but(5));
	close_bench();
}

/* Kernels that take 64 datagrams in a message, the outer headers counted in or not, or do not segment at all on the way to
 * a peer: nothing is lost, and it is tried once only. */
static void test_refused(void)
{
	static const struct {
		int error;
		uint32_t kernel_max, counted_bytes, then, refusals;
	} cases[] = {{EINVAL, 64, 0, 62, 1}, {EINVAL, 64, 28, 62, 1}, {EINVAL, 1, 0, 128, 2}, {EIO, 1, 0, 128, 1}, {EOPNOTSUPP, 1, 0, 128, 1}};

	for (size_t i = 0; i < COUNT(cases); i++) {
		open_bench();
		fake.udp_segments_max = cases[i].kernel_max;
		fake.udp_segments_error = cases[i].error;
		fake.udp_counted_bytes = cases[i].counted_bytes;
		feed_plain(3, 200);
		feed_super(2, 4, 17, 100, 12000);
		feed_super(2, 4, 17, 100, 12000);
		CHECK(bench_drain(&bench) == 3 && all_sent_but(0));
		CHECK(bench.rig.udp.segments_max == cases[i].then);
		CHECK(bench_stat(&bench, STAT_tx_gso_refused) == cases[i].refusals);
		close_bench();
	}
}

/* Messages that it takes to send ten packets to peer n. */
static uint32_t messages_for_ten(uint32_t n)
{
	uint32_t before = fake.udp_messages;

	for (int i = 0; i < 10; i++)
		feed_plain(n, 100);
	CHECK(bench_drain(&bench) == 10);
	return fake.udp_messages - before;
}

/* The way to one peer refuses what others take: it alone goes without, and is tried again later. */
static void test_refused_on_one_way(void)
{
	static const int errors[] = {EIO, EINVAL, EOPNOTSUPP};

	for (size_t i = 0; i < COUNT(errors); i++) {
		open_bench();
		fake.udp_segments_max = 1;
		fake.udp_segments_error = errors[i];
		fake.udp_refusing_be = htonl(PEER(2));
		CHECK(messages_for_ten(2) == 10 && messages_for_ten(3) == 1 && messages_for_ten(2) == 10);
		CHECK(bench_stat(&bench, STAT_tx_gso_refused) == 1);
		bench.rig.now_ns += TRANSMIT_SEGMENT_NS; /* tried again, and in vain */
		CHECK(messages_for_ten(2) == 10 && messages_for_ten(3) == 1);
		CHECK(bench_stat(&bench, STAT_tx_gso_refused) == 2);
		fake.udp_segments_max = 0; /* the way has changed */
		CHECK(messages_for_ten(2) == 10);
		bench.rig.now_ns += TRANSMIT_SEGMENT_NS;
		CHECK(messages_for_ten(2) == 1 && all_sent_but(0));
		close_bench();
	}
}

/* Such a kernel is content with as many of the shortest packets there are: headers without payload. */
static void test_refused_headers(void)
{
	open_bench();
	fake.udp_segments_max = 64;
	fake.udp_segments_error = EINVAL;
	fake.udp_counted_bytes = 28;
	make_udp(bench.packet, OURS(5), THEIRS(2, 7), 0);
	put_16(bench.packet + 2, 20);
	seal(bench.packet);
	for (int i = 0; i < 200; i++) {
		feed(bench.packet, 20);
		expect(2, bench.packet, 20);
	}
	CHECK(bench_drain(&bench) == 200 && all_sent_but(0));
	CHECK(bench_stat(&bench, STAT_tx_gso_refused) == 1);
	close_bench();
}

/* Segmentation is not to blame for an error that a single datagram meets as well. */
static void test_not_to_blame(void)
{
	open_bench();
	fake_fault(&fake.udp_out, 0, EINVAL, 3);
	for (int i = 0; i < 20; i++)
		feed_plain(2, 100);
	CHECK(bench_drain(&bench) == 20 && all_sent_but(1));
	CHECK(bench.rig.udp.segments_max == UDP_IO_SEGMENTS_MAX);
	CHECK(bench_stat(&bench, STAT_tx_drop_send_error) == 1);
	close_bench();
}

static void test_super_packet_too_big(void)
{
	open_bench();
	fake.path_mtu = 1300;
	fake.udp_longest_bytes = 1272;
	feed_super(2, 4, 6, 1400, 4000); /* TCP has DF: dropped as a whole, answered once */
	feed_plain(2, 900);
	CHECK(bench_drain(&bench) == 2 && all_sent_but(3));
	CHECK(bench_stat(&bench, STAT_tx_drop_too_big) == 3 && fake.tun_out.count == 1 && written_is_icmp(0, 0, 4, 1272));
	feed_super(2, 4, 17, 1400, 4000); /* UDP has not: two fragments for each segment but the last */
	CHECK(bench_drain(&bench) == 1);
	CHECK(bench_stat(&bench, STAT_tx_fragmented) == 3 && bench_stat(&bench, STAT_tx_delivered) == 4);
	CHECK(fake.udp_out.count == 1 + 5 && bench_stat(&bench, STAT_tx_path_mtu_learned) == 1);
	close_bench();
}

/* Cut, then whole, then cut again: how far one segment was cut says nothing about the next. */
static void test_path_changes_within_a_super_packet(void)
{
	struct reassembly *last = calloc(1, sizeof(*last));

	open_bench();
	bench.rig.udp.segments_max = 1;
	fake.path_mtu = 1280;
	fake.udp_longest_bytes = 1252;
	fake_fault(&fake.udp_out, 1, EAGAIN, 1);
	fake_fault(&fake.udp_out, 2, EAGAIN, 1);
	feed_super(2, 4, 17, 1400, 3 * 1400);
	CHECK(bench_batch(&bench) == 1 && fake.udp_out.count == 1); /* one fragment of the first segment */
	fake.udp_longest_bytes = 0;
	bench.rig.now_ns += TRANSMIT_PATH_MTU_NS;
	bench_resume(&bench);
	CHECK(fake.udp_out.count == 2 && fake.udp_out.items[1].length == expected[0].length);
	fake.udp_longest_bytes = 1252;
	bench_resume(&bench);
	CHECK(bench_in_flight(&bench) == 0 && fake.udp_out.count == 2 + 2 + 2);
	for (uint32_t i = 4; i < 6; i++)
		reassemble(last, fake.udp_out.items[i].bytes, fake.udp_out.items[i].length);
	CHECK(is_whole(last, expected[2].bytes, expected[2].length));
	memset(last, 0, sizeof(*last));
	for (uint32_t i = 2; i < 4; i++)
		reassemble(last, fake.udp_out.items[i].bytes, fake.udp_out.items[i].length);
	CHECK(is_whole(last, expected[1].bytes, expected[1].length));
	CHECK(bench_stat(&bench, STAT_tx_delivered) == 3 && bench_stat(&bench, STAT_tx_fragmented) == 2);
	free(last);
	close_bench();
}

/* Anything in any order: the law holds at every step, and nothing is sent twice, changed or out of order. */
static void test_at_random(void)
{
	static const int errors[] = {EAGAIN, EAGAIN, EAGAIN, ENOBUFS, EPERM, EINTR, EIO, EINVAL};
	static const struct rig_route tables[][2] = {
		{{THEIRS(2, 0), 24, 4, PEER(2), RIG_PORT}, {THEIRS(3, 0), 24, 4, PEER(3), RIG_PORT + 1}},
		{{THEIRS(2, 0), 24, 4, PEER(2), RIG_PORT}, {THEIRS(4, 0), 24, 4, PEER(4), RIG_PORT}},
	};

	for (int round = 0; round < 400; round++) {
		uint32_t at = 0;

		open_bench();
		if (random_below(3) == 0)
			fake.udp_per_call = 1 + random_below(3);
		for (int i = 0; i < 7; i++) {
			at += random_below(30);
			fake_fault(&fake.udp_out, at, errors[random_below(COUNT(errors))], 1 + random_below(4));
		}
		for (int step = 0; step < 12; step++) {
			for (uint32_t i = random_below(6); i > 0; i--) {
				if (random_below(3))
					feed_plain(2 + random_below(2), 60 + 40 * random_below(3));
				else
					feed_super(2 + random_below(2), 4, random_below(2) ? 6 : 17, 300, 1 + random_below(3000));
			}
			bench.rig.now_ns += random_below((uint32_t)MS_NS(30));
			if (random_below(4) == 0)
				rig_publish(&bench.rig, tables[random_below(2)], 2);
			if (transmit_blocked(&bench.transmit))
				bench_resume(&bench);
			else
				bench_batch(&bench);
		}
		fake.udp_out.faults_done = fake.udp_out.fault_count;
		bench_resume(&bench);
		bench_drain(&bench);
		CHECK(fake.udp_out.count == bench_stat(&bench, STAT_tx_delivered));
		CHECK(all_sent_but((uint32_t)(expected_count - bench_stat(&bench, STAT_tx_delivered))));
		close_bench();
	}
}

int main(void)
{
	test_joined();
	test_where_messages_end();
	test_largest_messages();
	test_super_packets();
	test_super_packet_without_a_route();
	test_refused();
	test_refused_on_one_way();
	test_refused_headers();
	test_not_to_blame();
	test_super_packet_too_big();
	test_path_changes_within_a_super_packet();
	test_at_random();
	return check_done();
}
