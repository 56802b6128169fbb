/* test_unfinished: what a kernel's tunnel left to a card: which packets are taken for it, and how they are handed on.
 *
 * Packets are made by super.h as the kernel makes them, and what is written is cut by it as a kernel would cut it: that
 * must be what the sender would have sent with a card of its own.
 */
#include "receive_rig.h"
#include "super.h"
#include "unfinished.h"

#define TCP_AND_UDP (UDPB_OFFLOAD_TCP_COALESCE | UDPB_OFFLOAD_UDP_COALESCE)

static uint8_t stream[66000], made[SUPER_ROOM];

/* A packet of peer 2 to us. */
static struct shape from_peer(uint8_t version, uint8_t protocol, size_t payload)
{
	struct shape s = protocol == TCP ? plain_tcp(version) : plain_udp(version);

	s.payload = stream;
	s.payload_bytes = payload;
	return s;
}

static void set_addresses(uint8_t *out)
{
	if (out[0] >> 4 == 6) {
		rig_ipv6(out + 8, 2, 7);
		rig_ipv6(out + 24, 1, 5);
		return;
	}
	put_32(out + 12, THEIRS(2, 7));
	put_32(out + 16, OURS(5));
	seal(out);
}

static size_t make_right(const struct shape *s, uint8_t *out)
{
	size_t len = shape_make(s, out);

	set_addresses(out);
	seal_transport(out, len, ip_bytes(s), s->protocol);
	return len;
}

static size_t make_partial(const struct shape *s, uint8_t *out)
{
	size_t len = make_right(s, out), start = ip_bytes(s);

	put_16(out + start + field_of(s->protocol), pseudo_sum(out, len, start, s->protocol));
	return len;
}

static enum transport_checksum ask(const uint8_t *bytes, size_t len, const struct shape *s)
{
	uint8_t *exactly = malloc(len);
	struct transport t = { exactly, (uint32_t)len, (uint16_t)ip_bytes(s), s->protocol };
	enum transport_checksum found;

	memcpy(exactly, bytes, len);
	found = transport_checksum(&t);
	CHECK(transport_may_be_partial(&t) || found != CHECKSUM_PARTIAL);
	free(exactly);
	return found;
}

/* ---- which packets ---- */

static void test_told_apart(void)
{
	for (int k = 0; k < 4; k++) {
		for (size_t payload = 0; payload < 3000; payload += 1 + random_below(97)) {
			struct shape s = from_peer(k & 1 ? 6 : 4, k & 2 ? UDP : TCP, payload);
			size_t len = make_right(&s, made), at = ip_bytes(&s) + field_of(s.protocol);

			CHECK(ask(made, len, &s) == CHECKSUM_RIGHT);
			len = make_partial(&s, made);
			CHECK(ask(made, len, &s) == CHECKSUM_PARTIAL);
			put_16(made + at, ~get_16(made + at)); /* complemented, as nobody leaves it */
			CHECK(ask(made, len, &s) == CHECKSUM_WRONG);
			put_16(made + at, ~get_16(made + at) + 1); /* another length's */
			CHECK(ask(made, len, &s) == CHECKSUM_WRONG);
			put_16(made + at, 0);
			CHECK(ask(made, len, &s) == CHECKSUM_WRONG);
		}
	}
}

/* A right checksum that is the pseudo-header's sum by chance: such a packet is like any other. */
static void test_right_by_chance(void)
{
	struct shape s = from_peer(4, UDP, 100);
	size_t len = make_right(&s, made), start = 20;
	uint32_t pseudo = pseudo_sum(made, len, start, UDP);

	/* The rest must sum up to the complement of twice the pseudo-header. */
	put_16(made + start + 6, 0);
	put_16(made + start + 8, 0);
	put_16(made + start + 8, 0xffff - sum_16(sum_16(pseudo, (uint8_t[]){(uint8_t)(pseudo >> 8), (uint8_t)pseudo}, 2),
						   made + start, len - start));
	seal_transport(made, len, start, UDP);
	CHECK(get_16(made + start + 6) == pseudo && ask(made, len, &s) == CHECKSUM_RIGHT);
	open_bench(UDPB_SOURCE_SUBNET);
	arrive(PEER(2), made, len);
	CHECK(batch() == 1 && written_is(0, 0) && stat(STAT_rx_partial_checksum) == 0);
	close_bench();
}

/* Headers that end before the checksum does: nothing is read that is not there. */
static void test_cut_off(void)
{
	for (int k = 0; k < 4; k++) {
		struct shape s = from_peer(k & 1 ? 6 : 4, k & 2 ? UDP : TCP, 0);
		size_t whole = make_partial(&s, made);

		for (size_t len = ip_bytes(&s) + 8; len < whole; len++)
			CHECK(ask(made, len, &s) != CHECKSUM_RIGHT);
	}
}

/* ---- how they are handed on ---- */

static const struct fake_item *written(uint32_t number)
{
	static const struct fake_item none;

	return CHECK(number < fake.tun_out.count) ? &fake.tun_out.items[number] : &none;
}

static void test_lone(void)
{
	for (int k = 0; k < 4; k++) {
		struct shape s = from_peer(k & 1 ? 6 : 4, k & 2 ? UDP : TCP, 700);
		struct virtio_net_hdr expected = shape_virtio(&s, 0);
		size_t len = make_partial(&s, made);

		open_bench(UDPB_SOURCE_SUBNET);
		arrive(PEER(2), made, len);
		arrive(PEER(2), made, make_right(&s, made));
		made[len - 1] ^= 1; /* neither right nor partial: its receiver shall see that */
		arrive(PEER(2), made, len);
		CHECK(batch() == 3 && stat(DELIVERED) == 3 && stat(STAT_rx_partial_checksum) == 1);
		CHECK(written(0)->length == len && !memcmp(written(0)->bytes, fake.udp_in.items[0].bytes, len));
		expected.hdr_len = written(0)->header.hdr_len; /* of a whole packet it says nothing */
		CHECK(!memcmp(&written(0)->header, &expected, sizeof(expected)));
		CHECK(written_is(1, 1) && written_is(2, 2));
		close_bench();
	}
}

/* A fragment has no checksum of its own, and an extension hides where it is: they pass as they came. */
static void test_left_alone(void)
{
	struct shape fragment = from_peer(4, UDP, 700), extended = from_peer(6, TCP, 700);

	fragment.fragment = MF;
	extended.ip_option_bytes = 8;
	memcpy(extended.ip_options, "\6\0\1\4\0\0\0\0", 8);
	open_bench(UDPB_SOURCE_SUBNET);
	arrive(PEER(2), made, make_partial(&fragment, made));
	arrive(PEER(2), made, make_partial(&extended, made));
	CHECK(batch() == 2 && written_is(0, 0) && written_is(1, 1) && stat(STAT_rx_partial_checksum) == 0);
	close_bench();
}

/* One super-packet in one datagram, as flannel0 is given it: whole, or cut where it takes none, or refuses it. */
static void check_super(struct shape s, uint32_t offloads, bool refused, size_t told, size_t size)
{
	static uint8_t piece[SUPER_ROOM];
	size_t len = make_partial(&s, made);
	struct virtio_net_hdr expected = shape_virtio(&s, size);
	size_t count = cut_count(len, &expected, headers_bytes(&s));
	bool whole = !refused && offloads & (s.protocol == TCP ? UDPB_OFFLOAD_TCP_COALESCE : UDPB_OFFLOAD_UDP_COALESCE);

	open_bench(UDPB_SOURCE_SUBNET);
	bench.rig.tun.offloads = offloads;
	if (refused)
		fake_fault(&fake.tun_out, 0, EINVAL, 1);
	if (s.flags & CWR)
		expected.gso_type |= VIRTIO_NET_HDR_GSO_ECN;
	arrive(PEER(2), made, len);
	fake_latest(&fake.udp_in)->segment = (int)told;
	CHECK(batch() == 1 && stat(DELIVERED) == 1 && stat(STAT_rx_bytes) == len);
	CHECK(stat(STAT_rx_received) == 1 && atomic_load(&rig_peer(&bench.rig, 2)->rx_packets) == 1);
	CHECK(stat(STAT_rx_partial_checksum) == 1 && stat(STAT_rx_super_packets) == 1);
	CHECK(stat(STAT_rx_coalesce_refused) == refused);
	CHECK(fake.tun_out.count == (whole ? 1 : count) && stat(STAT_rx_writes) == fake.tun_out.count);
	if (whole)
		CHECK(written(0)->length == len && !memcmp(written(0)->bytes, made, len) &&
		      !memcmp(&written(0)->header, &expected, sizeof(expected)));
	for (size_t i = 0; i < count && !whole; i++) {
		size_t bytes = cut(made, len, &expected, s.protocol, i, piece);

		CHECK(bytes <= FAKE_MTU && written((uint32_t)i)->length == bytes && written((uint32_t)i)->header.flags == 0);
		CHECK(same_packet(written((uint32_t)i)->bytes, piece, bytes, ip_bytes(&s), s.protocol));
	}
	bench.rig.tun.offloads = 0;
	fake.tun_out.faults_done = fake.tun_out.fault_count;
	close_bench();
}

static void test_super(void)
{
	static const size_t payloads[] = {1433, 1460, 5000, 40000, 65535 - 60 - 20 - 40};

	for (int k = 0; k < 4; k++)
		for (size_t i = 0; i < COUNT(payloads); i++)
			for (int how = 0; how < 3; how++) {
				bool udp = k & 2;
				struct shape s = from_peer(k & 1 ? 6 : 4, udp ? UDP : TCP, payloads[i]);
				size_t size = udp ? 1000 : FAKE_MTU - headers_bytes(&s);

				s.flags |= (uint8_t)(udp ? 0 : PSH | (how == 0 ? CWR : 0));
				check_super(s, how ? TCP_AND_UDP : 0, how == 2, udp ? size : 0, size);
			}
}

static void test_super_with_options(void)
{
	struct shape s = from_peer(4, TCP, 20000);

	memset(s.ip_options, 1, 40);
	memset(s.tcp_options, 1, 40);
	s.ip_option_bytes = s.tcp_option_bytes = 40;
	for (int how = 0; how < 3; how++)
		check_super(s, how ? TCP_AND_UDP : 0, how == 2, 0, FAKE_MTU - 120);
}

/* A super-packet of UDP that is shorter than the MTU: its datagrams are told, so it is cut all the same. */
static void test_short_super(void)
{
	struct shape s = from_peer(4, UDP, 3 * 8);

	check_super(s, 0, false, 8, 8);
	s.payload_bytes = 2;
	check_super(s, 0, false, 1, 1);
}

/* UDP of which nobody knows where its datagrams end, or that a peer makes into more of them than any kernel sends. */
static void test_undivided(void)
{
	static const struct {
		size_t payload;
		int told;
	} cases[] = {{5000, 0}, {FAKE_MTU - 27, 0}, {5000, FAKE_MTU - 27}, {65000, 100}, {129, 1}};

	for (size_t i = 0; i < COUNT(cases); i++) {
		struct shape s = from_peer(4, UDP, cases[i].payload);

		open_bench(UDPB_SOURCE_SUBNET);
		bench.rig.tun.offloads = TCP_AND_UDP;
		arrive(PEER(2), made, make_partial(&s, made));
		fake_latest(&fake.udp_in)->segment = cases[i].told;
		CHECK(batch() == 1 && stat(STAT_rx_drop_udp_super_packet) == 1 && fake.tun_out.count == 0);
		bench.rig.tun.offloads = 0;
		close_bench();
	}
}

/* Nobody makes packets out of the payload of others: the second half here looks like one of the same peer's. */
static void test_payload_is_no_packet(void)
{
	struct shape inside = from_peer(4, UDP, 972), s = from_peer(4, UDP, 2000 - 28);

	memcpy(stream + 1000 - 28, made, make_right(&inside, made));
	open_bench(UDPB_SOURCE_SUBNET);
	arrive(PEER(2), made, make_partial(&s, made));
	fake_latest(&fake.udp_in)->segment = 1000;
	CHECK(batch() == 1 && stat(STAT_rx_received) == 1 && stat(DELIVERED) == 1 && fake.tun_out.count == 2);
	for (uint32_t i = 0; i < 2; i++)
		CHECK(get_16(written(i)->bytes + 2) == written(i)->length && written(i)->length == (i ? 1000 : 1028));
	close_bench();
}

/* What is partial is joined with what is not, in its flow's order, and a super-packet stands between them. */
static void test_joined(void)
{
	struct shape s = from_peer(4, TCP, 1000);

	open_bench(UDPB_SOURCE_SUBNET);
	bench.rig.tun.offloads = TCP_AND_UDP;
	for (int i = 0; i < 7; i++) {
		s.payload_bytes = i == 4 ? 5000 : 1000;
		arrive(PEER(2), made, i % 2 ? make_right(&s, made) : make_partial(&s, made));
		s.sequence += (uint32_t)s.payload_bytes;
	}
	CHECK(batch() == 7 && stat(DELIVERED) == 7 && stat(STAT_rx_partial_checksum) == 4);
	CHECK(fake.tun_out.count == 3 && written(0)->length == 4040 && written(1)->length == 5040 && written(2)->length == 2040);
	CHECK(written(0)->header.gso_size == 1000 && written(1)->header.gso_size == FAKE_MTU - 40);
	CHECK(written(2)->header.gso_size == 1000);
	bench.rig.tun.offloads = 0;
	close_bench();
}

/* A group that is refused comes apart, and each packet is said to be what it is. */
static void test_joined_and_refused(void)
{
	struct shape s = from_peer(4, TCP, 1000);

	open_bench(UDPB_SOURCE_SUBNET);
	bench.rig.tun.offloads = TCP_AND_UDP;
	fake_fault(&fake.tun_out, 0, EINVAL, 1);
	for (int i = 0; i < 4; i++, s.sequence += 1000)
		arrive(PEER(2), made, i % 2 ? make_right(&s, made) : make_partial(&s, made));
	CHECK(batch() == 4 && stat(DELIVERED) == 4 && stat(STAT_rx_partial_checksum) == 2 && fake.tun_out.count == 4);
	for (uint32_t i = 0; i < 4; i++)
		CHECK(written(i)->length == 1040 && written(i)->header.flags == (i % 2 ? 0 : VIRTIO_NET_HDR_F_NEEDS_CSUM));
	bench.rig.tun.offloads = 0;
	close_bench();
}

/* A piece that flannel0 does not take: the packet counts as lost, and the rest of the batch is written. */
static void test_piece_lost(void)
{
	static const int errors[] = {ENOBUFS, EIO, EINVAL, EBADFD};
	static const enum stat_id counters[] = {STAT_rx_drop_tun_full, STAT_rx_drop_tun_down, STAT_rx_drop_tun_refused,
						STAT_rx_drop_tun_down};

	for (size_t i = 0; i < COUNT(errors); i++) {
		struct shape s = from_peer(4, TCP, 5000);

		open_bench(UDPB_SOURCE_SUBNET);
		fake_fault(&fake.tun_out, 1, errors[i], 1);
		arrive(PEER(2), made, make_partial(&s, made));
		arrive_udp(PEER(2), THEIRS(2, 7));
		CHECK(batch() == (errors[i] == EBADFD ? -EBADFD : 2));
		CHECK(stat(DELIVERED) == 1 && stat(counters[i]) == 1);
		close_bench();
	}
}

/* That the TUN is gone is told, whatever was refused before it. */
static void test_gone_behind_a_refusal(void)
{
	struct shape s = from_peer(4, TCP, 5000);

	open_bench(UDPB_SOURCE_SUBNET);
	fake_fault(&fake.tun_out, 1, ENOBUFS, 1);
	fake_fault(&fake.tun_out, 1, EBADFD, 1);
	arrive(PEER(2), made, make_partial(&s, made));
	CHECK(batch() == -EBADFD);
	CHECK(stat(DELIVERED) == 0 && stat(STAT_rx_drop_tun_down) == 1);
	close_bench();
}

/* However small the MTU, a datagram does not become thousands of packets. */
static void test_bounded(void)
{
	struct shape s = from_peer(4, TCP, 65535 - 120);

	memset(s.ip_options, 1, 40);
	memset(s.tcp_options, 1, 40);
	s.ip_option_bytes = s.tcp_option_bytes = 40;
	s.payload_bytes = 65535 - 120;
	open_bench(UDPB_SOURCE_SUBNET);
	bench.rig.tun.mtu = 121;
	arrive(PEER(2), made, make_partial(&s, made));
	CHECK(batch() == 1 && stat(DELIVERED) == 1 && fake.tun_out.count == (65535 - 120 + 255) / 256);
	close_bench();
}

int main(void)
{
	fill_random(stream, sizeof(stream));
	test_told_apart();
	test_right_by_chance();
	test_cut_off();
	test_lone();
	test_left_alone();
	test_super();
	test_super_with_options();
	test_short_super();
	test_undivided();
	test_payload_is_no_packet();
	test_joined();
	test_joined_and_refused();
	test_piece_lost();
	test_gone_behind_a_refusal();
	test_bounded();
	return check_done();
}
