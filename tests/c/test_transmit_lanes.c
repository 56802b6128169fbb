/* test_transmit_lanes: what a slow peer does to the others, to itself and to memory.
 *
 * What is sent to a slow address stays charged to its socket until the test lets it go. Peers are 192.0.2.n with
 * 10.0.n.0/24.
 */
#include "transmit_rig.h"

#define PEERS 100 /* numbers 2 to 101 */
#define SUPER_BYTES 56000
#define SEGMENTS (SUPER_BYTES / 1400)

static struct bench bench;
static struct udp_io second; /* of another port */

static void open_bench(void)
{
	static struct rig_route routes[PEERS];

	bench_open(&bench);
	bench.rig.udp.segments_max = UDP_IO_SEGMENTS_MAX;
	fake.uncounted = true;
	for (uint32_t i = 0; i < PEERS; i++)
		routes[i] = (struct rig_route){THEIRS(i + 2, 0), 24, 4, PEER(i + 2), RIG_PORT};
	rig_publish(&bench.rig, routes, PEERS);
}

static void close_bench(void)
{
	for (uint32_t i = 0; i < fake.slow_count; i++)
		fake_let_go(ntohl(fake.slow_be[i]));
	fake.slow_count = 0;
	fake.uncounted = false;
	bench_close(&bench);
}

/* Feeds a super-packet to peer n. */
static void feed_much(uint32_t n)
{
	size_t length = make_udp(bench.packet, OURS(5), THEIRS(n, 7), SUPER_BYTES);

	feed_with(bench.packet, length,
		  (struct virtio_net_hdr){.flags = VIRTIO_NET_HDR_F_NEEDS_CSUM,
					  .gso_type = VIRTIO_NET_HDR_GSO_UDP_L4,
					  .gso_size = 1400,
					  .csum_start = 20,
					  .csum_offset = 6});
	fake_latest(&fake.tun_in)->packets = SEGMENTS;
}

static void move(void)
{
	bench_drain(&bench); /* which checks that nothing waits */
	fake_forget(&fake.tun_in);
	bench.rig.now_ns += MS_NS(2);
}

static void much_to(uint32_t n, uint32_t times)
{
	while (times-- > 0) {
		feed_much(n);
		move();
	}
}

static uint64_t dropped(uint32_t n)
{
	return atomic_load(&rig_peer(&bench.rig, n)->tx_dropped);
}

static size_t charged_in_all(void)
{
	size_t sum = 0;

	for (uint32_t i = 0; i < FAKE_SOCKETS; i++)
		sum += fake.charged[i];
	return sum;
}

static size_t charged_to_common(void)
{
	return fake.charged[0];
}

/* A peer that takes nothing fills its own lane, and what does not fit is its loss; the other one's every packet leaves. */
static void test_one_slow(void)
{
	open_bench();
	fake_make_slow(PEER(2));
	for (uint32_t i = 0; i < 300; i++) {
		feed_udp(&bench, 3, 1);
		much_to(2, 1);
	}
	CHECK(fake.sent_to[3] == 300 && dropped(3) == 0);
	CHECK(dropped(2) > 0 && dropped(2) == bench_stat(&bench, STAT_tx_drop_slow_peer));
	CHECK(dropped(2) + fake.sent_to[2] == 300 * SEGMENTS);
	CHECK(charged_to_common() <= 2 * LANES_QUOTA_BYTES);
	CHECK(charged_in_all() <= 5 << 20);
	CHECK(atomic_load(&rig_peer(&bench.rig, 2)->dropped_ns) > 0 && atomic_load(&rig_peer(&bench.rig, 3)->dropped_ns) == 0);
	close_bench();
}

/* What is sent to the slow peer keeps its order, lane or not. */
static void test_order(void)
{
	uint32_t last = 0, seen = 0;

	open_bench();
	fake.uncounted = false;
	fake_make_slow(PEER(2));
	for (uint32_t i = 1; i <= 900; i++) {
		size_t length = make_udp(bench.packet, OURS(5), THEIRS(2, 7), 8000);

		put_32(bench.packet + 28, i);
		feed(bench.packet, length);
		move();
		if (i % 200 == 0)
			fake_let_go(PEER(2));
	}
	for (uint32_t i = 0; i < fake.udp_out.count; i++) {
		uint32_t number = get_32(fake.udp_out.items[i].bytes + 28);

		CHECK(number > last);
		last = number;
		seen |= fake.udp_out.items[i].fd == 4 ? 1 : 2;
	}
	CHECK(seen == 3); /* both were used */
	fake_forget(&fake.tun_in);
	bench_release(&bench);
}

/* When the lane has drained the peer is as all others. */
static void test_drained(void)
{
	open_bench();
	fake_make_slow(PEER(2));
	much_to(2, 200);
	CHECK(charged_to_common() > 0 && charged_in_all() > 2 * charged_to_common());
	fake_let_go(PEER(2));
	fake.slow_count = 0;
	much_to(2, 7);
	fake.uncounted = false;
	feed_udp(&bench, 2, 1);
	move();
	CHECK(fake_latest(&fake.udp_out)->fd == 4);
	close_bench();
}

/* Where nobody is slow there are no lanes, and a question for every quota of bytes at most. */
static void test_none_slow(void)
{
	open_bench();
	for (uint32_t i = 0; i < 400; i++)
		much_to(2 + i % 2, 1);
	CHECK(bench_stat(&bench, STAT_tx_delivered) == 400 * SEGMENTS);
	CHECK(bench.transmit.lanes.lanes[0].open == 0);
	CHECK(fake.queued_calls > 0 && fake.queued_calls <= 400 * (SUPER_BYTES + 2000) / LANES_QUOTA_BYTES + 1);
	close_bench();
}

/* `slow` peers among a hundred take nothing; all others are sent much, or only a little. */
static void many(uint32_t slow, bool much, uint32_t rounds)
{
	uint64_t sent = 0;

	open_bench();
	for (uint32_t n = 2; n < 2 + slow; n++)
		fake_make_slow(PEER(n));
	for (uint32_t round = 0; round < rounds; round++) {
		for (uint32_t n = 2; n < 2 + PEERS; n++) {
			if (n < 2 + slow || much)
				feed_much(n);
			else
				feed_udp(&bench, n, 1);
		}
		move();
		sent++;
	}
	for (uint32_t n = 2 + slow; n < 2 + PEERS; n++)
		CHECK(fake.sent_to[n] == sent * (much ? SEGMENTS : 1) && dropped(n) == 0);
	for (uint32_t n = 2; n < 2 + slow; n++)
		CHECK(dropped(n) > 0);
	CHECK(bench_stat(&bench, STAT_tx_drop_socket_full) == 0);
	CHECK(charged_to_common() <= (slow <= LANES_MAX ? slow * 6 * LANES_QUOTA_BYTES / 4 : FAKE_BUFFER_BYTES * 3 / 4));
	CHECK(charged_in_all() <= FAKE_BUFFER_BYTES + LANES_MAX * (5U << 20));
	close_bench();
}

/* The others are sent twenty times as much as the slow one, and use up their quotas long before it does. */
static void test_slow_among_fast(uint32_t fast)
{
	open_bench();
	fake_make_slow(PEER(2));
	for (uint32_t round = 0; round < 500; round++) {
		feed_much(2);
		for (uint32_t i = 0; i < 20; i++)
			feed_much(3 + i % fast);
		move();
	}
	CHECK(dropped(2) > 0 && bench_stat(&bench, STAT_tx_drop_slow_peer) == dropped(2));
	CHECK(charged_to_common() <= (fast + 2) * LANES_QUOTA_BYTES);
	close_bench();
}

static void test_many(void)
{
	many(3, false, 120);
	many(3, true, 120);
	many(LANES_MAX, true, 120);
	many(50, false, 150); /* more than there are lanes: those beyond are held back */
}

/* No further socket can be opened: who sends little still gets through, and the TUN is read. */
static void test_no_lanes(void)
{
	open_bench();
	fake.beside_error = EMFILE;
	fake_make_slow(PEER(2));
	for (uint32_t i = 0; i < 400; i++) {
		feed_udp(&bench, 3, 1);
		much_to(2, 1);
	}
	CHECK(fake.sent_to[3] == 400 && dropped(2) > 0);
	CHECK(charged_to_common() <= FAKE_BUFFER_BYTES / 2 + LANES_QUOTA_BYTES);
	fake_let_go(PEER(2)); /* and is itself again as soon as it can be */
	bench.rig.now_ns += LANES_TRY_NS;
	fake.sent_to[2] = 0;
	much_to(2, 2);
	CHECK(fake.sent_to[2] == 2 * SEGMENTS);
	close_bench();
}

/* While the socket is full, what waits is looked at again and again, whenever anything is received: it is offered once all
 * the same. So who is sent little is not held back as if it were much. */
static void test_little_that_waits(void)
{
	open_bench();
	fake.beside_error = EMFILE;
	fake_make_slow(PEER(2));
	much_to(2, 300); /* the shared socket is half full, and stays so */
	for (uint32_t i = 0; i < 100; i++) { /* more in all than a quarter of a quota, but never much at a time */
		feed_udp(&bench, 3, 1);
		move();
	}
	CHECK(fake.sent_to[3] == 100 && dropped(3) == 0);
	fake_fault(&fake.udp_out, 0, EAGAIN, 200);
	feed_udp(&bench, 3, 1);
	bench_batch(&bench);
	for (uint32_t i = 0; i < 199; i++) {
		bench.rig.now_ns += 100000;
		bench_resume(&bench);
	}
	bench.rig.now_ns += LANES_LITTLE_NS;
	bench_resume(&bench);
	CHECK(fake.sent_to[3] == 101 && dropped(3) == 0);
	feed_udp(&bench, 3, 1);
	move();
	CHECK(fake.sent_to[3] == 102 && dropped(3) == 0);
	fake.beside_error = 0;
	close_bench();
}

/* A lane has a socket for each source port, and a flow keeps its own. */
static void test_source_ports(void)
{
	int models[2] = {0};

	open_bench();
	second = bench.rig.udp;
	second.fd = FAKE_BESIDE + FAKE_SOCKETS - 2;
	CHECK(transmit_add_socket(&bench.transmit, &second) == 0);
	bench.rig.udp.source_be = 0;
	second.source_be = htonl(FAKE_SOURCE); /* the fake asks for it from any fd but the first */
	fake_make_slow(PEER(2));
	much_to(2, 100);
	for (uint32_t i = 1; i < FAKE_SOCKETS; i++) {
		models[0] += fake.beside_model[i] == 4;
		models[1] += fake.beside_model[i] == second.fd;
	}
	CHECK(models[0] == 1 && models[1] == 1);
	CHECK(bench.transmit.lanes.lanes[0].open == 2 && bench.transmit.lanes.lanes[1].open == 0);
	fake_let_go(PEER(2));
	fake.slow_count = 0;
	bench_release(&bench);
}

/* A qdisc that drops says so to a lane; where it does not, the errno means memory. */
static void test_no_buffer(void)
{
	open_bench();
	fake.uncounted = false;
	fake_fault(&fake.udp_out, 0, ENOBUFS, 1);
	feed_udp(&bench, 2, 1);
	move();
	CHECK(bench_stat(&bench, STAT_tx_drop_no_buffer) == 1 && dropped(2) == 0);
	fake_make_slow(PEER(2));
	fake.uncounted = true;
	much_to(2, 20);
	fake.uncounted = false;
	fake_fault(&fake.udp_out, 0, ENOBUFS, 2);
	feed_udp(&bench, 2, 1);
	move();
	CHECK(bench_stat(&bench, STAT_tx_drop_no_buffer) == 1 && dropped(2) == 1);
	feed_udp(&bench, 2, 1);
	move();
	CHECK(bench_stat(&bench, STAT_tx_drop_slow_peer) == 2);
	close_bench();
}

/* A packet that is cut, too. */
static void test_fragments(void)
{
	uint64_t before;

	open_bench();
	fake_make_slow(PEER(2));
	much_to(2, 200);
	before = dropped(2);
	peer_learn_path_mtu(rig_peer(&bench.rig, 2), 600, bench.rig.now_ns + SECONDS_NS(9));
	feed(bench.packet, make_udp(bench.packet, OURS(5), THEIRS(2, 7), 1200));
	feed_udp(&bench, 3, 1);
	move();
	CHECK(dropped(2) == before + 1 && fake.sent_to[3] == 1);
	close_bench();
}

/* The peer that a lane was for is gone, and another has its subnet. */
static void test_peer_gone(void)
{
	static const struct rig_route moved[] = {{THEIRS(2, 0), 24, 4, PEER(3), RIG_PORT}};

	open_bench();
	fake_make_slow(PEER(2));
	much_to(2, 200);
	rig_publish(&bench.rig, moved, 1);
	fake.sent_to[3] = 0;
	much_to(2, 100);
	CHECK(fake.sent_to[3] == 100 * SEGMENTS);
	rig_publish(&bench.rig, (const struct rig_route[]){{THEIRS(2, 0), 24, 4, PEER(2), RIG_PORT}}, 1);
	close_bench();
}

/* More peers than are remembered: nobody is charged for another. */
static void test_more_peers_than_shares(void)
{
	static struct peer peers[4 * LANES_SHARES];
	struct lanes *l = &bench.transmit.lanes;

	open_bench();
	for (uint32_t i = 0; i < COUNT(peers); i++)
		peers[i] = (struct peer){.address_be = htonl(0x0a000000 + i), .port_be = htons(RIG_PORT)};
	for (uint32_t round = 0; round < 3; round++)
		for (uint32_t i = 0; i < COUNT(peers); i++) {
			struct lanes_share *share = lanes_share(l, &peers[i]);

			CHECK(share->address_be == peers[i].address_be && share->charged_bytes <= LANES_QUOTA_BYTES);
			lanes_charge(l, share, 1, 1000 + i);
			CHECK(lanes_socket(l, share, 0, 1000, bench.rig.now_ns) == &bench.rig.udp);
		}
	close_bench();
}

int main(void)
{
	test_one_slow();
	test_order();
	test_drained();
	test_none_slow();
	test_many();
	test_slow_among_fast(1);
	test_slow_among_fast(4);
	test_no_lanes();
	test_little_that_waits();
	test_source_ports();
	test_no_buffer();
	test_fragments();
	test_peer_gone();
	test_more_peers_than_shares();
	return check_done();
}
