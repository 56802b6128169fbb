/* test_transmit_socket: a socket that takes little, nothing, or refuses: what waits, what leaves later, what is counted.
 */
#include "transmit_rig.h"

static struct bench bench;

/* Whether `count` packets from `first` on were sent to peer n, in order, each once, and nothing else was. */
static bool sent_in_order(uint32_t count, uint32_t n)
{
	for (uint32_t i = 0; i < count; i++)
		if (!sent_is(i, i, n))
			return false;
	return fake.udp_out.count == count;
}

static void test_partial_sends(void)
{
	for (uint32_t per_call = 1; per_call < 9; per_call++) {
		bench_open(&bench);
		fake.udp_per_call = per_call;
		feed_udp(&bench, 2, 20);
		CHECK(bench_batch(&bench) == 20);
		CHECK(sent_in_order(20, 2));
		bench_close(&bench);
	}
}

static void test_interrupted(void)
{
	bench_open(&bench);
	fake_fault(&fake.udp_out, 0, EINTR, 3);
	fake_fault(&fake.udp_out, 4, EINTR, 1);
	feed_udp(&bench, 2, 9);
	CHECK(bench_batch(&bench) == 9);
	CHECK(sent_in_order(9, 2));
	bench_close(&bench);
}

/* Wherever the socket says no, the rest waits and leaves once, in order, when it says yes again. */
static void test_blocked_anywhere(void)
{
	for (uint32_t at = 0; at < 12; at++)
		for (uint32_t times = 1; times < 4; times++) {
			bench_open(&bench);
			fake_fault(&fake.udp_out, at, EAGAIN, times);
			feed_udp(&bench, 2, 12);
			feed_udp(&bench, 2, 5);
			CHECK(bench_batch(&bench) == 17);
			for (uint32_t i = 0; i < times; i++) {
				CHECK(transmit_blocked(&bench.transmit));
				CHECK(bench_in_flight(&bench) == 17 - at && fake.udp_out.count == at);
				bench.rig.now_ns += MS_NS(1);
				bench_resume(&bench);
			}
			CHECK(sent_in_order(17, 2));
			bench_resume(&bench); /* with nothing left to do */
			CHECK(sent_in_order(17, 2));
			bench_close(&bench);
		}
}

/* The socket takes a little at every attempt. */
static void test_blocked_again_and_again(void)
{
	bench_open(&bench);
	for (uint32_t at = 3; at < 24; at += 3)
		fake_fault(&fake.udp_out, at, EAGAIN, 1);
	feed_udp(&bench, 2, 24);
	CHECK(bench_batch(&bench) == 24);
	for (uint32_t sent = 3; sent < 24; sent += 3) {
		CHECK(bench_in_flight(&bench) == 24 - sent);
		bench.rig.now_ns += TRANSMIT_STALL_NS - 1; /* progress each time: never a stall */
		bench_resume(&bench);
	}
	CHECK(sent_in_order(24, 2));
	CHECK(bench_stat(&bench, STAT_tx_drop_socket_full) == 0);
	bench_close(&bench);
}

static void test_stall(void)
{
	bench_open(&bench);
	fake_fault(&fake.udp_out, 4, EAGAIN, 4);
	feed_udp(&bench, 2, 10);
	CHECK(bench_batch(&bench) == 10);
	bench.rig.now_ns += MS_NS(60);
	bench_resume(&bench);
	CHECK(bench_in_flight(&bench) == 6);
	bench.rig.now_ns += MS_NS(40) - 1;
	bench_resume(&bench);
	CHECK(bench_in_flight(&bench) == 6);
	bench.rig.now_ns += 1; /* 100 ms */
	bench_resume(&bench);
	CHECK(bench_in_flight(&bench) == 0 && !transmit_blocked(&bench.transmit));
	CHECK(bench_stat(&bench, STAT_tx_drop_socket_full) == 6 && bench_stat(&bench, STAT_tx_delivered) == 4);
	CHECK(atomic_load(&rig_peer(&bench.rig, 2)->tx_packets) == 4);
	CHECK(fake.tun_out.count == 0);
	bench_close(&bench);
}

/* A stall does not shorten the patience with the next one. */
static void test_second_stall(void)
{
	bench_open(&bench);
	fake_fault(&fake.udp_out, 0, EAGAIN, 4);
	feed_udp(&bench, 2, 1);
	bench_batch(&bench);
	bench.rig.now_ns += TRANSMIT_STALL_NS;
	bench_resume(&bench);
	CHECK(bench_stat(&bench, STAT_tx_drop_socket_full) == 1);
	feed_udp(&bench, 2, 1);
	bench.rig.now_ns += 1;
	bench_batch(&bench);
	bench.rig.now_ns += TRANSMIT_STALL_NS - 1;
	bench_resume(&bench);
	CHECK(bench_in_flight(&bench) == 1);
	bench_resume(&bench);
	CHECK(bench_stat(&bench, STAT_tx_drop_socket_full) == 1 && sent_is(0, 1, 2));
	bench_close(&bench);
}

static void test_table_replaced_while_blocked(void)
{
	static const struct rig_route moved[] = {
		{THEIRS(2, 0), 24, 4, PEER(3), RIG_PORT + 1},
		{THEIRS(3, 0), 24, 4, PEER(3), RIG_PORT + 1},
	};
	struct peer *kept;

	bench_open(&bench);
	kept = rig_peer(&bench.rig, 3);
	fake_fault(&fake.udp_out, 2, EAGAIN, 1);
	feed_udp(&bench, 2, 8);
	CHECK(bench_batch(&bench) == 8);
	CHECK(atomic_load(&rig_peer(&bench.rig, 2)->tx_packets) == 2);
	rig_publish(&bench.rig, moved, 2); /* frees peer 2: nothing may touch it any more */
	bench_resume(&bench);
	CHECK(fake.udp_out.count == 8);
	for (uint32_t i = 0; i < 8; i++)
		CHECK(sent_is(i, i, i < 2 ? 2 : 3));
	CHECK(rig_peer(&bench.rig, 3) == kept && atomic_load(&kept->tx_packets) == 6);
	rig_publish(&bench.rig, (const struct rig_route[]){{THEIRS(2, 0), 24, 4, PEER(2), RIG_PORT}}, 1);
	bench_close(&bench);
}

/* Some of what waits has lost its route: it is answered, and the others keep their order. */
static void test_routes_gone_while_blocked(void)
{
	static const struct rig_route left[] = {{THEIRS(2, 0), 24, 4, PEER(2), RIG_PORT}};

	bench_open(&bench);
	fake_fault(&fake.udp_out, 0, EAGAIN, 1);
	for (int i = 0; i < 4; i++) {
		feed_udp(&bench, 3, 1);
		feed_udp(&bench, 2, 1);
	}
	CHECK(bench_batch(&bench) == 8);
	rig_publish(&bench.rig, left, 1);
	bench_resume(&bench);
	CHECK(bench_stat(&bench, STAT_tx_drop_no_route) == 4 && fake.udp_out.count == 4 && fake.tun_out.count == 4);
	for (uint32_t i = 0; i < 4; i++)
		CHECK(written_is_icmp(i, 2 * i, 1, 0) && sent_is(i, 2 * i + 1, 2));
	bench_close(&bench);

	bench_open(&bench); /* ... what left before is not answered any more */
	fake_fault(&fake.udp_out, 2, EAGAIN, 1);
	feed_udp(&bench, 3, 2);
	feed_udp(&bench, 2, 1);
	feed_udp(&bench, 3, 1);
	CHECK(bench_batch(&bench) == 4 && bench_in_flight(&bench) == 2);
	rig_publish(&bench.rig, left, 1);
	bench_resume(&bench);
	CHECK(bench_stat(&bench, STAT_tx_drop_no_route) == 1 && fake.tun_out.count == 1 && written_is_icmp(0, 3, 1, 0));
	CHECK(fake.udp_out.count == 3 && sent_is(2, 2, 2));
	bench_close(&bench);

	bench_open(&bench); /* ... and when all have, the socket is not asked again */
	fake_fault(&fake.udp_out, 0, EAGAIN, 1);
	feed_udp(&bench, 3, 3);
	CHECK(bench_batch(&bench) == 3);
	rig_publish(&bench.rig, left, 1);
	bench_resume(&bench);
	CHECK(bench_stat(&bench, STAT_tx_drop_no_route) == 3 && fake.udp_out.calls == 1);
	bench_close(&bench);
}

/* Every errno has its counter; the packet it struck is dropped, and no other. */
static void test_errors(void)
{
	static const struct {
		int error;
		enum stat_id counter;
	} cases[] = {
		{ENETUNREACH, STAT_tx_drop_unreachable}, {EHOSTUNREACH, STAT_tx_drop_unreachable},
		{ENETDOWN, STAT_tx_drop_unreachable},    {EPERM, STAT_tx_drop_refused},
		{EACCES, STAT_tx_drop_refused},          {ENOBUFS, STAT_tx_drop_no_buffer},
		{ENOMEM, STAT_tx_drop_no_buffer},        {EINVAL, STAT_tx_drop_send_error},
		{ECONNREFUSED, STAT_tx_drop_send_error}, {EBADF, STAT_tx_drop_send_error},
		{EPIPE, STAT_tx_drop_send_error},
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++)
		for (uint32_t at = 0; at < 5; at += 2) {
			int named = cases[i].counter == STAT_tx_drop_send_error ? cases[i].error : 0;

			bench_open(&bench);
			fake_fault(&fake.udp_out, at, cases[i].error, 1);
			feed_udp(&bench, 2, 5);
			CHECK(bench_batch(&bench) == 5);
			CHECK(bench_stat(&bench, cases[i].counter) == 1 && bench_stat(&bench, STAT_tx_delivered) == 4);
			for (uint32_t j = 0; j < 4; j++)
				CHECK(sent_is(j, j < at ? j : j + 1, 2));
			CHECK(atomic_load(&bench.rig.stats.last_error) ==
			      (named ? (uint64_t)bench.rig.now_ns / 1000000000 << 32 | STAT_tx_drop_send_error << 16 |
					       (uint64_t)named
				     : 0));
			CHECK(fake.tun_out.count == 0);
			bench_close(&bench);
		}
}

static void test_every_packet_refused(void)
{
	bench_open(&bench);
	fake_fault(&fake.udp_out, 0, EPERM, 40);
	feed_udp(&bench, 2, 40);
	CHECK(bench_drain(&bench) == 40);
	CHECK(bench_stat(&bench, STAT_tx_drop_refused) == 40 && bench_stat(&bench, STAT_tx_delivered) == 0);
	bench_close(&bench);
}

/* An error behind a block, and the other way round. */
static void test_errors_and_blocks(void)
{
	bench_open(&bench);
	fake_fault(&fake.udp_out, 1, EAGAIN, 1);
	fake_fault(&fake.udp_out, 1, ENOBUFS, 1);
	fake_fault(&fake.udp_out, 1, EAGAIN, 1);
	fake_fault(&fake.udp_out, 3, EAGAIN, 1);
	fake_fault(&fake.udp_out, 3, EPERM, 2);
	feed_udp(&bench, 2, 8);
	CHECK(bench_batch(&bench) == 8 && bench_in_flight(&bench) == 7);
	bench_resume(&bench);
	CHECK(bench_in_flight(&bench) == 6);
	bench_resume(&bench);
	CHECK(bench_in_flight(&bench) == 4);
	bench_resume(&bench);
	CHECK(bench_in_flight(&bench) == 0);
	CHECK(sent_is(0, 0, 2) && sent_is(1, 2, 2) && sent_is(2, 3, 2) && sent_is(3, 6, 2) && sent_is(4, 7, 2));
	CHECK(bench_stat(&bench, STAT_tx_drop_no_buffer) == 1 && bench_stat(&bench, STAT_tx_drop_refused) == 2);
	bench_close(&bench);
}

static void test_closed_while_blocked(void)
{
	bench_open(&bench);
	fake_fault(&fake.udp_out, 3, EAGAIN, 1);
	feed_udp(&bench, 2, 10);
	CHECK(bench_batch(&bench) == 10);
	transmit_release(&bench.transmit);
	CHECK(bench_stat(&bench, STAT_tx_drop_closed) == 7 && bench_stat(&bench, STAT_tx_delivered) == 3);
	bench_release(&bench); /* a second time: nothing more */
	CHECK(bench_stat(&bench, STAT_tx_drop_closed) == 7);
}

int main(void)
{
	test_partial_sends();
	test_interrupted();
	test_blocked_anywhere();
	test_blocked_again_and_again();
	test_stall();
	test_second_stall();
	test_table_replaced_while_blocked();
	test_routes_gone_while_blocked();
	test_errors();
	test_every_packet_refused();
	test_errors_and_blocks();
	test_closed_while_blocked();
	return check_done();
}
