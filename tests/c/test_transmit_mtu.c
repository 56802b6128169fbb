/* test_transmit_mtu: paths narrower than flannel0: learning their MTU, asking again, answering, cutting inside and out.
 *
 * The fake socket refuses every datagram with DF longer than `udp_longest_bytes`, and `path_mtu` is what the kernel says.
 */
#include "transmit_rig.h"

static struct bench bench;
static struct reassembly *whole;

static void narrow(int path_mtu)
{
	fake.path_mtu = path_mtu;
	fake.udp_longest_bytes = (size_t)path_mtu - UDP_IO_OVERHEAD_BYTES;
}

/* Whether the datagrams `from` to `to` are the fragments of packet `read`, none too long and all to peer n. */
static bool are_fragments(uint32_t from, uint32_t to, uint32_t read, uint32_t n, size_t longest)
{
	const struct fake_item *packet = &fake.tun_in.items[read];
	bool fine = to <= fake.udp_out.count;

	memset(whole, 0, sizeof(*whole));
	for (uint32_t i = from; i < to && fine; i++) {
		const struct fake_item *datagram = &fake.udp_out.items[i];

		reassemble(whole, datagram->bytes, datagram->length);
		fine = datagram->length <= longest && datagram->address.sin_addr.s_addr == htonl(PEER(n)) &&
		       get_16(datagram->bytes + 4) == get_16(packet->bytes + 4) &&
		       !memcmp(datagram->bytes + 12, packet->bytes + 12, 8);
	}
	return fine && is_whole(whole, packet->bytes, packet->length);
}

static void feed_sized(uint32_t n, size_t length, uint32_t fragment)
{
	feed(bench.packet, make_inner(bench.packet, OURS(5), THEIRS(n, 7), 17, fragment, length - 28));
}

static void test_learned(void)
{
	uint32_t calls;

	bench_open(&bench);
	narrow(1400);
	feed_sized(2, 1472, DONT_FRAGMENT);
	CHECK(bench_batch(&bench) == 1);
	CHECK(written_is_icmp(0, 0, 4, 1372) && fake.udp_out.count == 0);
	CHECK(bench_stat(&bench, STAT_tx_drop_too_big) == 1 && bench_stat(&bench, STAT_tx_icmp_too_big) == 1);
	CHECK(bench_stat(&bench, STAT_tx_path_mtu_learned) == 1);
	CHECK(peer_path_mtu(rig_peer(&bench.rig, 2), bench.rig.now_ns) == 1400);
	CHECK(peer_path_mtu(rig_peer(&bench.rig, 3), bench.rig.now_ns) == UINT32_MAX);
	CHECK(fake.path_mtu_peer.sin_family == AF_INET);
	CHECK(fake.path_mtu_peer.sin_addr.s_addr == htonl(PEER(2)) && fake.path_mtu_peer.sin_port == htons(RIG_PORT));

	/* From now on it is known without asking. */
	calls = fake.udp_out.calls;
	feed_sized(2, 1373, DONT_FRAGMENT);
	CHECK(bench_batch(&bench) == 1 && fake.udp_out.calls == calls && written_is_icmp(1, 1, 4, 1372));
	feed_sized(2, 1372, DONT_FRAGMENT);
	CHECK(bench_batch(&bench) == 1 && sent_is(0, 2, 2));
	CHECK(fake.path_mtu_calls == 1 && bench_stat(&bench, STAT_tx_path_mtu_learned) == 1);

	/* It outlives the table, and ten minutes without a packet that is too long are the end of it. */
	rig_publish(&bench.rig, (const struct rig_route[]){{THEIRS(2, 0), 24, 4, PEER(2), RIG_PORT}}, 1);
	CHECK(peer_path_mtu(rig_peer(&bench.rig, 2), bench.rig.now_ns + TRANSMIT_PATH_MTU_NS - 1) == 1400);
	bench.rig.now_ns += TRANSMIT_PATH_MTU_NS;
	fake.udp_longest_bytes = 0;
	feed_sized(2, 1472, DONT_FRAGMENT);
	CHECK(bench_batch(&bench) == 1 && sent_is(1, 3, 2) && fake.path_mtu_calls == 1);
	bench_close(&bench);
}

/* A packet that is too long has the kernel asked again, every few seconds: by sending it. */
static void test_asked_again(void)
{
	bench_open(&bench);
	narrow(1400);
	feed_sized(2, 1472, DONT_FRAGMENT);
	CHECK(bench_batch(&bench) == 1 && fake.path_mtu_calls == 1);
	bench.rig.now_ns += TRANSMIT_PATH_MTU_ASK_NS - 1;
	feed_sized(2, 1472, DONT_FRAGMENT);
	CHECK(bench_batch(&bench) == 1 && fake.path_mtu_calls == 1 && written_is_icmp(1, 1, 4, 1372));

	bench.rig.now_ns += 1; /* it still says so: believed for ten more minutes, nothing is new */
	feed_sized(2, 1472, DONT_FRAGMENT);
	feed_sized(2, 1472, DONT_FRAGMENT);
	CHECK(bench_batch(&bench) == 2 && fake.path_mtu_calls == 2 && written_is_icmp(2, 2, 4, 1372));
	CHECK(written_is_icmp(3, 3, 4, 1372) && bench_stat(&bench, STAT_tx_path_mtu_learned) == 1);
	CHECK(peer_path_mtu(rig_peer(&bench.rig, 2), bench.rig.now_ns + TRANSMIT_PATH_MTU_NS - 1) == 1400);

	bench.rig.now_ns += TRANSMIT_PATH_MTU_ASK_NS; /* wider, and still too narrow */
	narrow(1450);
	feed_sized(2, 1472, 0);
	CHECK(bench_batch(&bench) == 1 && fake.path_mtu_calls == 3 && are_fragments(0, 2, 4, 2, 1422));
	CHECK(peer_path_mtu(rig_peer(&bench.rig, 2), bench.rig.now_ns) == 1450);

	bench.rig.now_ns += TRANSMIT_PATH_MTU_ASK_NS; /* wide: sent, and the next one as if nothing had been */
	fake.udp_longest_bytes = 0;
	feed_sized(2, 1472, DONT_FRAGMENT);
	feed_sized(2, 1472, DONT_FRAGMENT);
	CHECK(bench_batch(&bench) == 2 && fake.path_mtu_calls == 4 && sent_is(2, 5, 2) && sent_is(3, 6, 2));
	CHECK(peer_path_mtu(rig_peer(&bench.rig, 2), bench.rig.now_ns) == UINT32_MAX);
	bench_close(&bench);
}

/* The socket is full when the kernel is asked: nothing is lost or sent twice, and it is asked once there is room. */
static void test_full_when_asked(void)
{
	bench_open(&bench);
	narrow(1400);
	feed_sized(2, 1472, DONT_FRAGMENT);
	CHECK(bench_batch(&bench) == 1);
	bench.rig.now_ns += TRANSMIT_PATH_MTU_ASK_NS;
	fake.udp_longest_bytes = 0;
	fake_fault(&fake.udp_out, 0, EAGAIN, 2);
	feed_sized(2, 1472, DONT_FRAGMENT);
	CHECK(bench_batch(&bench) == 1 && bench_in_flight(&bench) == 1 && bench.transmit.full_fd == 4);
	bench_resume(&bench);
	CHECK(bench_in_flight(&bench) == 1);
	bench_resume(&bench);
	CHECK(fake.udp_out.count == 1 && sent_is(0, 1, 2));
	bench_close(&bench);
}

static void test_cut(void)
{
	static const int mtus[] = {1280, 1281, 1399, 1400, 1499};

	for (size_t i = 0; i < sizeof(mtus) / sizeof(*mtus); i++) {
		size_t room = (size_t)mtus[i] - UDP_IO_OVERHEAD_BYTES;
		uint32_t sent;

		bench_open(&bench);
		narrow(mtus[i]);
		for (uint32_t j = 0; j < 3; j++) {
			sent = fake.udp_out.count;
			feed_sized(2, 1472 + j, 0);
			CHECK(bench_batch(&bench) == 1 && are_fragments(sent, fake.udp_out.count, j, 2, room));
		}
		CHECK(bench_stat(&bench, STAT_tx_delivered) == 3 && bench_stat(&bench, STAT_tx_fragmented) == 3);
		CHECK(bench_stat(&bench, STAT_tx_datagrams) == fake.udp_out.count && fake.tun_out.count == 0);
		CHECK(atomic_load(&rig_peer(&bench.rig, 2)->tx_packets) == 3);
		CHECK(bench_stat(&bench, STAT_tx_bytes) == 1472 + 1473 + 1474);
		bench_close(&bench);
	}
}

/* Long, short and answered packets in one batch keep their order. */
static void test_mixed(void)
{
	bench_open(&bench);
	narrow(1300);
	feed_sized(2, 100, 0);
	feed_sized(2, 1472, 0);             /* two fragments */
	feed_sized(3, 1472, 0);             /* another peer's path is as narrow, and is learned by itself */
	feed_sized(2, 1272, DONT_FRAGMENT); /* just fits */
	feed_sized(2, 1472, DONT_FRAGMENT); /* answered */
	feed_sized(2, 100, 0);
	CHECK(bench_batch(&bench) == 6 && fake.udp_out.count == 7 && fake.tun_out.count == 1);
	CHECK(sent_is(0, 0, 2) && are_fragments(1, 3, 1, 2, 1272) && are_fragments(3, 5, 2, 3, 1272));
	CHECK(sent_is(5, 3, 2) && written_is_icmp(0, 4, 4, 1272) && sent_is(6, 5, 2));
	CHECK(bench_stat(&bench, STAT_tx_path_mtu_learned) == 2);
	bench_close(&bench);
}

/* EMSGSIZE, but no smaller MTU is known: nothing to learn, and no MTU to tell the sender. */
static void test_nothing_learned(void)
{
	static const int answers[] = {1500, 65535, -EMSGSIZE};

	for (size_t i = 0; i < sizeof(answers) / sizeof(*answers); i++) {
		bench_open(&bench);
		narrow(1400);
		fake.path_mtu = answers[i];
		feed_sized(2, 1472, DONT_FRAGMENT);
		feed_sized(2, 1472, 0);
		feed_sized(2, 100, 0);
		CHECK(bench_batch(&bench) == 3 && sent_is(0, 2, 2) && fake.udp_out.count == 1);
		CHECK(bench_stat(&bench, STAT_tx_drop_too_big) == 2 && fake.tun_out.count == 0);
		CHECK(bench_stat(&bench, STAT_tx_path_mtu_learned) == 0);
		CHECK(peer_path_mtu(rig_peer(&bench.rig, 2), bench.rig.now_ns) == UINT32_MAX);
		bench_close(&bench);
	}
}

static void test_ipv6_is_dropped(void)
{
	uint8_t to[16], from[16];

	bench_open(&bench);
	narrow(1400);
	rig_ipv6(from, 1, 5);
	rig_ipv6(to, 2, 7);
	feed(bench.packet, make_udp6(bench.packet, from, to, 1400));
	CHECK(bench_batch(&bench) == 1);
	CHECK(bench_stat(&bench, STAT_tx_drop_too_big) == 1 && fake.tun_out.count == 0 && fake.udp_out.count == 0);
	CHECK(bench_stat(&bench, STAT_tx_path_mtu_learned) == 1);
	bench_close(&bench);
}

static void feed_ipv6(size_t length)
{
	uint8_t to[16], from[16];

	rig_ipv6(from, 1, 5);
	rig_ipv6(to, 2, 7);
	feed(bench.packet, make_udp6(bench.packet, from, to, length - 48));
}

/* Said to be so narrow that IPv6 could not pass, rightly or not: what every IPv6 link takes leaves with DF clear. */
static void test_ipv6_always_crosses(void)
{
	static const int mtus[] = {1307, 1280, 1000, 576, 68};

	for (size_t i = 0; i < sizeof(mtus) / sizeof(*mtus); i++) {
		size_t said = (size_t)mtus[i] - UDP_IO_OVERHEAD_BYTES, shorter = said < 100 ? 100 : said;

		bench_open(&bench);
		narrow(mtus[i]);
		feed_ipv6(shorter);
		feed_ipv6(1280);
		feed_ipv6(1280);
		feed_ipv6(1281);
		feed_ipv6(shorter);
		CHECK(bench_batch(&bench) == 5 && fake.udp_out.count == 4);
		CHECK(sent_is(0, 0, 2) && sent_is(1, 1, 2) && sent_is(2, 2, 2) && sent_is(3, 4, 2));
		CHECK(fake.udp_cut_outside == (shorter > said ? 4 : 2) && !fake.udp_no_df && fake.path_mtu_calls == 1);
		CHECK(bench_stat(&bench, STAT_tx_drop_too_big) == 1);
		CHECK(bench_stat(&bench, STAT_tx_path_mtu_doubted) == (mtus[i] < 1280));
		bench_close(&bench);
	}
}

static uint32_t interferes; /* so often */

/* Switches DF off; at once another thread that shares the fd, and has just sent, switches it on again. */
static int set_discovery_shared(int fd, int how)
{
	fake.udp_no_df = how == IP_PMTUDISC_DONT;
	if (fake.udp_no_df && interferes > 0) {
		interferes--;
		fake.udp_no_df = false;
	}
	return fd < 0;
}

/* Two queues' threads send such datagrams from one fd. */
static void test_df_set_by_another_thread(void)
{
	for (uint32_t times = 0; times < 4; times++) {
		bench_open(&bench);
		bench.rig.udp.set_discovery = set_discovery_shared;
		narrow(1000);
		feed_ipv6(1280);
		CHECK(bench_batch(&bench) == 1);
		interferes = times;
		feed_ipv6(1280);
		CHECK(bench_batch(&bench) == 1 && sent_is(1, 1, 2) && !fake.udp_no_df);
		CHECK(bench_stat(&bench, STAT_tx_drop_too_big) == 0 && interferes == 0);
		bench.rig.udp.set_discovery = fake_set_discovery;
		bench_close(&bench);
	}
}

/* No path is believed to be narrower than 1280 bytes. */
static void test_implausible(void)
{
	bench_open(&bench);
	narrow(1000);
	feed_sized(2, 1252, DONT_FRAGMENT); /* leaves all the same */
	feed_sized(2, 1253, DONT_FRAGMENT); /* told of 1252 */
	feed_sized(2, 1472, 0);             /* cut to that inside, the first fragment once more outside */
	feed_sized(2, 972, 0);
	CHECK(bench_batch(&bench) == 4 && fake.udp_out.count == 4);
	CHECK(sent_is(0, 0, 2) && written_is_icmp(0, 1, 4, 1252) && are_fragments(1, 3, 2, 2, 1252) && sent_is(3, 3, 2));
	CHECK(fake.udp_cut_outside == 2 && !fake.udp_no_df);
	CHECK(bench_stat(&bench, STAT_tx_path_mtu_learned) == 1 && bench_stat(&bench, STAT_tx_path_mtu_doubted) == 1);

	/* The kernel is asked again, for these too. */
	bench.rig.now_ns += TRANSMIT_PATH_MTU_ASK_NS;
	fake.udp_longest_bytes = 0;
	feed_sized(2, 1100, DONT_FRAGMENT);
	CHECK(bench_batch(&bench) == 1 && sent_is(4, 4, 2) && fake.path_mtu_calls == 2);
	CHECK(peer_path_mtu(rig_peer(&bench.rig, 2), bench.rig.now_ns) == UINT32_MAX);
	bench_close(&bench);
}

/* The path narrows again between two fragments: those that are left are cut anew. */
static void test_narrows_between_fragments(void)
{
	bench_open(&bench);
	narrow(1400);
	feed_sized(2, 4000, 0);
	CHECK(bench_batch(&bench) == 1 && fake.udp_out.count == 3);
	fake_fault(&fake.udp_out, 4, EMSGSIZE, 2); /* the second fragment of the next packet, and when it is asked about */
	fake.path_mtu = 1300;
	feed_sized(2, 4000, 0);
	CHECK(bench_batch(&bench) == 1 && are_fragments(3, fake.udp_out.count, 1, 2, 1372));
	CHECK(bench_stat(&bench, STAT_tx_path_mtu_learned) == 2 && bench_stat(&bench, STAT_tx_delivered) == 2);
	bench_close(&bench);
}

static void test_fragment_refused(void)
{
	bench_open(&bench);
	narrow(1300);
	fake_fault(&fake.udp_out, 1, ENETUNREACH, 1);
	feed_sized(2, 1472, 0);
	feed_sized(2, 1472, 0); /* starts from its beginning */
	CHECK(bench_batch(&bench) == 2 && fake.udp_out.count == 3 && are_fragments(1, 3, 1, 2, 1272));
	CHECK(bench_stat(&bench, STAT_tx_drop_unreachable) == 1 && bench_stat(&bench, STAT_tx_delivered) == 1);
	CHECK(bench_stat(&bench, STAT_tx_datagrams) == 3);
	bench_close(&bench);
}

/* The socket fills up anywhere among the fragments: each leaves once all the same. */
static void test_blocked_between_fragments(void)
{
	for (uint32_t at = 0; at < 9; at++) {
		bench_open(&bench);
		narrow(1400);
		fake_fault(&fake.udp_out, at, EAGAIN, 3);
		feed_sized(2, 4000, 0); /* three fragments each */
		feed_sized(2, 4000, 0);
		feed_sized(2, 4000, 0);
		CHECK(bench_batch(&bench) == 3);
		for (int i = 0; i < 3; i++) {
			CHECK(fake.udp_out.count == at && bench_in_flight(&bench) == 3 - at / 3);
			bench_resume(&bench);
		}
		CHECK(bench_in_flight(&bench) == 0 && fake.udp_out.count == 9);
		for (uint32_t i = 0; i < 3; i++)
			CHECK(are_fragments(3 * i, 3 * i + 3, i, 2, 1372));
		CHECK(bench_stat(&bench, STAT_tx_delivered) == 3 && bench_stat(&bench, STAT_tx_datagrams) == 9);
		bench_close(&bench);
	}
}

/* Blocked among the fragments of packet 0, and then ... `what` happens. Packet 1 must come whole in any case. */
static void test_changed_between_fragments(int what)
{
	static const struct rig_route moved[] = {{THEIRS(2, 0), 24, 4, PEER(3), RIG_PORT + 1}};
	static const struct rig_route emptied[] = {{THEIRS(3, 0), 24, 4, PEER(3), RIG_PORT + 1}};
	static const struct rig_route usual[] = {{THEIRS(2, 0), 24, 4, PEER(2), RIG_PORT}};
	uint32_t delivered = what == 1 || what == 3 ? 1 : 2;
	uint32_t n = what == 2 ? 3 : 2, sent;

	bench_open(&bench);
	narrow(1400);
	fake_fault(&fake.udp_out, 1, EAGAIN, what == 3 ? 2 : 1);
	feed_sized(2, 4000, 0);
	CHECK(bench_batch(&bench) == 1 && fake.udp_out.count == 1);
	if (what == 0) { /* the path is wide again, and what was learned is forgotten */
		fake.udp_longest_bytes = 0;
		bench.rig.now_ns += TRANSMIT_PATH_MTU_NS;
	} else if (what == 1) { /* its route is gone */
		rig_publish(&bench.rig, emptied, 1);
	} else if (what == 2) { /* another peer has the subnet, who has seen none of it */
		rig_publish(&bench.rig, moved, 1);
	} else { /* too long */
		bench.rig.now_ns += TRANSMIT_STALL_NS;
	}
	bench_resume(&bench);
	CHECK(!transmit_blocked(&bench.transmit));
	if (what == 0)
		CHECK(sent_is(1, 0, 2));
	if (what == 2)
		CHECK(are_fragments(1, 4, 0, 3, 1372));
	CHECK(fake.udp_out.count == (what == 0 ? 2 : what == 2 ? 4 : 1));

	if (what == 1)
		rig_publish(&bench.rig, usual, 1);
	narrow(1400);
	sent = fake.udp_out.count;
	feed_sized(2, 4000, 0);
	CHECK(bench_batch(&bench) == 1 && are_fragments(sent, sent + 3, 1, n, 1372));
	CHECK(bench_stat(&bench, STAT_tx_delivered) == delivered);
	rig_publish(&bench.rig, usual, 1);
	bench_close(&bench);
}

int main(void)
{
	whole = malloc(sizeof(*whole));
	test_learned();
	test_asked_again();
	test_full_when_asked();
	test_cut();
	test_mixed();
	test_nothing_learned();
	test_ipv6_is_dropped();
	test_ipv6_always_crosses();
	test_df_set_by_another_thread();
	test_implausible();
	test_narrows_between_fragments();
	test_fragment_refused();
	test_blocked_between_fragments();
	for (int what = 0; what < 4; what++)
		test_changed_between_fragments(what);
	free(whole);
	return check_done();
}
