/* test_receive: what is let in, from whom, and what becomes of it when flannel0 does not take it. */
#include "receive_rig.h"

#define STRANGER 0xc6336401 /* 198.51.100.1 */

static const uint32_t modes[] = {UDPB_SOURCE_SUBNET, UDPB_SOURCE_PEER, UDPB_SOURCE_OFF};

/* Takes one datagram that has been made to arrive; it must come to `verdict` and nothing else. */
static void expect(enum stat_id verdict)
{
	uint64_t before = stat(verdict), delivered = stat(DELIVERED);

	CHECK(batch() == 1);
	if (!CHECK(stat(verdict) == before + 1))
		printf("expected counter %d in mode %u\n", (int)verdict, bench.receive.source_check);
	CHECK(stat(DELIVERED) == delivered + (verdict == DELIVERED));
	CHECK(fake.tun_out.count == stat(DELIVERED));
	if (verdict == DELIVERED)
		CHECK(written_is(fake.tun_out.count - 1, fake.udp_in.count - 1));
}

static void test_delivered(void)
{
	struct peer *peer;
	uint8_t from[16], to[16];

	open_bench(UDPB_SOURCE_SUBNET);
	rig_ipv6(from, 2, 7);
	rig_ipv6(to, 1, 5);
	peer = rig_peer(&bench.rig, 2);
	arrive_udp(PEER(2), THEIRS(2, 7));
	arrive(PEER(2), bench.packet, make_udp6(bench.packet, from, to, 1000));
	arrive(PEER(3), bench.packet, make_tcp(bench.packet, THEIRS(3, 7), OURS(5), 65535 - 40));
	arrive(PEER(2), bench.packet, make_inner(bench.packet, THEIRS(2, 7), 0xe00000fb, 17, 100, 0)); /* to anywhere */
	CHECK(batch() == 4 && fake.tun_out.count == 4);
	for (uint32_t i = 0; i < 4; i++)
		CHECK(written_is(i, i));
	CHECK(stat(DELIVERED) == 4 && stat(STAT_rx_bytes) == 60 + 1048 + 65535 + 28);
	CHECK(atomic_load(&peer->rx_packets) == 3 && atomic_load(&peer->rx_bytes) == 60 + 1048 + 28);
	CHECK(atomic_load(&peer->heard_ns) == bench.rig.now_ns);
	CHECK(atomic_load(&peer->tx_packets) == 0);
	CHECK(atomic_load(&rig_peer(&bench.rig, 3)->rx_packets) == 1);
	close_bench();
}

/* The columns: who sends what to us, and what becomes of it with the check at subnet, peer and off. */
static void test_source_check(void)
{
	enum { UNKNOWN = STAT_rx_drop_unknown_peer, INNER = STAT_rx_drop_inner_source };
	enum { OWN = STAT_rx_drop_own_source, MARTIAN = STAT_rx_drop_martian_source };
	static const struct {
		uint32_t outer, inner;
		int verdicts[3];
	} cases[] = {
		{PEER(2), THEIRS(2, 7), {DELIVERED, DELIVERED, DELIVERED}},
		{PEER(2), THEIRS(2, 0), {DELIVERED, DELIVERED, DELIVERED}},
		{PEER(2), THEIRS(3, 7), {INNER, DELIVERED, DELIVERED}}, /* another peer's subnet */
		{PEER(2), THEIRS(9, 7), {INNER, DELIVERED, DELIVERED}}, /* nobody's */
		{PEER(2), PEER(2), {INNER, DELIVERED, DELIVERED}},
		{STRANGER, THEIRS(2, 7), {UNKNOWN, UNKNOWN, DELIVERED}},
		{STRANGER, THEIRS(9, 7), {UNKNOWN, UNKNOWN, DELIVERED}},
		{LOCAL_ADDRESS, THEIRS(2, 7), {UNKNOWN, UNKNOWN, DELIVERED}}, /* we are no peer of ours */
		{PEER(2), OURS(5), {OWN, OWN, OWN}},
		{PEER(2), TUN_ADDRESS, {OWN, OWN, OWN}},
		{STRANGER, OURS(5), {UNKNOWN, UNKNOWN, OWN}}, /* a stranger is a stranger, whatever he sends */
		{PEER(2), 0x7f000001, {MARTIAN, MARTIAN, MARTIAN}},
		{PEER(2), 0xe0000001, {MARTIAN, MARTIAN, MARTIAN}},
		{PEER(2), 0xffffffff, {MARTIAN, MARTIAN, MARTIAN}},
		{PEER(2), 0x00000000, {MARTIAN, MARTIAN, MARTIAN}},
		{STRANGER, 0x7f000001, {UNKNOWN, UNKNOWN, MARTIAN}},
	};

	for (size_t mode = 0; mode < 3; mode++) {
		open_bench(modes[mode]);
		for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
			arrive_udp(cases[i].outer, cases[i].inner);
			expect((enum stat_id)cases[i].verdicts[mode]);
		}
		close_bench();
	}
}

static void test_source_check_ipv6(void)
{
	static const int without_route[] = {STAT_rx_drop_inner_source, DELIVERED, DELIVERED};
	static const int strangers[] = {STAT_rx_drop_unknown_peer, STAT_rx_drop_unknown_peer, DELIVERED};
	static const uint8_t loopback[16] = {[15] = 1}, multicast[16] = {0xff, 2};
	uint8_t from[16], to[16];

	rig_ipv6(to, 1, 5);
	for (size_t mode = 0; mode < 3; mode++) {
		open_bench(modes[mode]);
		rig_ipv6(from, 2, 7); /* the peer's own prefix */
		arrive(PEER(2), bench.packet, make_udp6(bench.packet, from, to, 8));
		expect(DELIVERED);
		arrive(STRANGER, bench.packet, make_udp6(bench.packet, from, to, 8));
		expect((enum stat_id)strangers[mode]);
		rig_ipv6(from, 3, 7); /* has no IPv6 route */
		arrive(PEER(3), bench.packet, make_udp6(bench.packet, from, to, 8));
		expect((enum stat_id)without_route[mode]);
		arrive(PEER(2), bench.packet, make_udp6(bench.packet, to, from, 8));
		expect(STAT_rx_drop_own_source);
		arrive(PEER(2), bench.packet, make_udp6(bench.packet, loopback, to, 8));
		expect(STAT_rx_drop_martian_source);
		arrive(PEER(2), bench.packet, make_udp6(bench.packet, multicast, to, 8));
		expect(STAT_rx_drop_martian_source);
		close_bench();
	}
}

static void test_malformed(void)
{
	static const struct {
		enum stat_id counter;
		size_t at, cut; /* the byte to change, or how many to keep */
		uint8_t value;
	} cases[] = {
		{STAT_rx_drop_short, 0, 0, 0x45},          {STAT_rx_drop_short, 0, 19, 0x45},
		{STAT_rx_drop_short, 0, 39, 0x65},         {STAT_rx_drop_version, 0, 60, 0x35},
		{STAT_rx_drop_header_length, 0, 60, 0x42}, {STAT_rx_drop_header_length, 0, 56, 0x4f},
		{STAT_rx_drop_length, 0, 59, 0x45},        {STAT_rx_drop_length, 0, 61, 0x45},
		{STAT_rx_drop_length, 0, 60, 0x60},        {STAT_rx_drop_header_checksum, 8, 60, 1},
	};

	for (size_t mode = 0; mode < 3; mode++)
		for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
			open_bench(modes[mode]);
			memset(bench.packet, 0, 100);
			make_udp(bench.packet, THEIRS(2, 7), OURS(5), 32);
			bench.packet[cases[i].at] = cases[i].value;
			arrive(PEER(2), bench.packet, cases[i].cut);
			expect(cases[i].counter);
			arrive(STRANGER, bench.packet, cases[i].cut);
			expect(modes[mode] == UDPB_SOURCE_OFF ? cases[i].counter : STAT_rx_drop_unknown_peer);
			CHECK(atomic_load(&rig_peer(&bench.rig, 2)->rx_packets) == 0);
			close_bench();
		}
}

/* Who is credited: the sender by the outer address, where it is a peer's. */
static void test_heard(void)
{
	for (size_t mode = 0; mode < 3; mode++) {
		open_bench(modes[mode]);
		arrive_udp(PEER(3), THEIRS(3, 1));
		arrive_udp(PEER(3), THEIRS(2, 1)); /* delivered from mode peer on, to the credit of 3 */
		arrive_udp(STRANGER, THEIRS(2, 1));
		arrive_udp(PEER(3), OURS(5));
		CHECK(batch() == 4);
		CHECK(atomic_load(&rig_peer(&bench.rig, 3)->rx_packets) == (mode == 0 ? 1 : 2));
		CHECK(atomic_load(&rig_peer(&bench.rig, 2)->rx_packets) == 0);
		CHECK(atomic_load(&rig_peer(&bench.rig, 2)->heard_ns) == 0);
		close_bench();
	}
}

/* Two nodes behind one public address, told apart by their ports, which a datagram need not come from. */
static void test_two_ports(void)
{
	static const struct rig_route routes[] = {
		{THEIRS(2, 0), 24, 4, PEER(2), RIG_PORT},
		{THEIRS(4, 0), 24, 4, PEER(2), RIG_PORT + 1},
	};

	open_bench(UDPB_SOURCE_SUBNET);
	rig_publish(&bench.rig, routes, 2);
	arrive_udp(PEER(2), THEIRS(2, 1));
	arrive_udp(PEER(2), THEIRS(4, 1));
	CHECK(batch() == 2 && stat(DELIVERED) == 2);
	for (uint32_t i = 0; i < 2; i++)
		CHECK(atomic_load(&peer_map_at(bench.rig.table->peers, i)->rx_packets) == 1);
	close_bench();
}

/* What was believed under one table is looked up again under the next. */
static void test_table_replaced(void)
{
	static const struct rig_route moved[] = {
		{THEIRS(2, 0), 24, 4, PEER(3), RIG_PORT},
		{THEIRS(3, 0), 24, 4, PEER(2), RIG_PORT},
	};

	open_bench(UDPB_SOURCE_SUBNET);
	arrive_udp(PEER(2), THEIRS(2, 7));
	expect(DELIVERED);
	rig_publish(&bench.rig, moved, 2);
	arrive_udp(PEER(2), THEIRS(2, 7));
	expect(STAT_rx_drop_inner_source);
	arrive_udp(PEER(3), THEIRS(2, 7));
	expect(DELIVERED);
	rig_publish(&bench.rig, moved + 1, 1);
	arrive_udp(PEER(3), THEIRS(2, 7));
	expect(STAT_rx_drop_unknown_peer);
	rig_publish(&bench.rig, (const struct rig_route[]){{THEIRS(2, 0), 24, 4, PEER(2), RIG_PORT}}, 1);
	close_bench();
}

static void test_tun_errors(void)
{
	static const struct {
		int error, result;
		enum stat_id counter;
	} cases[] = {
		{EIO, 3, STAT_rx_drop_tun_down},          {EAGAIN, 3, STAT_rx_drop_tun_full},
		{ENOBUFS, 3, STAT_rx_drop_tun_full},      {ENOMEM, 3, STAT_rx_drop_tun_full},
		{EINVAL, 3, STAT_rx_drop_tun_refused},    {EPERM, 3, STAT_rx_drop_tun_refused},
		{EBADFD, -EBADFD, STAT_rx_drop_tun_down}, {EFAULT, -EFAULT, STAT_rx_drop_tun_down},
		{EBADF, -EBADF, STAT_rx_drop_tun_down},   {EINTR, 3, DELIVERED},
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		int interrupted = cases[i].error == EINTR; /* tried again: nothing is lost */
		int named = cases[i].counter == STAT_rx_drop_tun_refused ? cases[i].error : 0;

		open_bench(UDPB_SOURCE_SUBNET);
		fake_fault(&fake.tun_out, 1, cases[i].error, 1);
		for (int j = 0; j < 3; j++)
			arrive_udp(PEER(2), THEIRS(2, 7));
		CHECK(batch() == cases[i].result); /* the rest of the batch is dealt with */
		CHECK(stat(DELIVERED) == (interrupted ? 3 : 2));
		CHECK(written_is(0, 0) && written_is(interrupted ? 2 : 1, 2));
		CHECK(stat(cases[i].counter) == (interrupted ? 3 : 1));
		CHECK((atomic_load(&bench.rig.stats.last_error) & 0xffff) == (uint64_t)named);
		CHECK(atomic_load(&rig_peer(&bench.rig, 2)->rx_packets) == 3); /* heard all the same */
		close_bench();
	}
}

static void test_socket_errors(void)
{
	open_bench(UDPB_SOURCE_SUBNET);
	CHECK(batch() == 0 && stat(STAT_rx_socket_errors) == 0); /* there is nothing */
	fake_fault(&fake.udp_in, 0, EINTR, 2);
	fake_fault(&fake.udp_in, 1, ENETDOWN, 1);
	fake_fault(&fake.udp_in, 2, ECONNREFUSED, 1);
	for (int i = 0; i < 3; i++)
		arrive_udp(PEER(2), THEIRS(2, 7));
	CHECK(batch() == 1 && stat(STAT_rx_socket_errors) == 0);
	CHECK(batch() == 0 && stat(STAT_rx_socket_errors) == 1);
	CHECK((atomic_load(&bench.rig.stats.last_error) & 0xffff) == ENETDOWN);
	CHECK(batch() == 1);
	CHECK(batch() == 0 && stat(STAT_rx_socket_errors) == 2);
	CHECK(batch() == 1 && batch() == 0);
	CHECK(stat(DELIVERED) == 3);
	close_bench();
}

int main(void)
{
	test_delivered();
	test_source_check();
	test_source_check_ipv6();
	test_malformed();
	test_heard();
	test_two_ports();
	test_table_replaced();
	test_tun_errors();
	test_socket_errors();
	return check_done();
}
