/* test_ecn: the outer header's ECN field is the inner one's on the way out, and a mark made on the way gets in (RFC 6040).
 *
 * Both directions, by what a fake socket is told and tells.
 */
#include "receive_rig.h"
#include "transmit.h"

#define EF 0xb8 /* a DSCP, in its place */

static uint8_t from6[16], to6[16];

/* ---- out ---- */

static struct transmit sending;
static uint8_t *sending_arena;

static void open_sending(uint32_t copy_dscp)
{
	struct udpb_config config = rig_config(UDPB_SOURCE_SUBNET);

	config.copy_dscp = copy_dscp;
	rig_open(&bench.rig);
	bench.rig.udp.segments_max = UDP_IO_SEGMENTS_MAX;
	sending_arena = malloc(TRANSMIT_ARENA_BYTES);
	transmit_init(&sending, &bench.rig.tun, &bench.rig.udp, &bench.rig.stats, &config, sending_arena);
}

static void close_sending(void)
{
	transmit_release(&sending);
	rig_check_law(&bench.rig, UDPB_TX, 0);
	rig_close(&bench.rig);
	free(sending_arena);
}

static size_t make_outgoing(int version, uint8_t tos, size_t payload)
{
	size_t length = version == 4 ? make_udp(bench.packet, OURS(5), THEIRS(2, 7), payload)
				     : make_udp6(bench.packet, from6, to6, payload);

	set_tos(bench.packet, tos);
	return length;
}

static void feed_tos(int version, uint8_t tos)
{
	static const struct virtio_net_hdr plain;
	size_t length = make_outgoing(version, tos, 100);

	fake_keep(&fake.tun_in, bench.packet, length, &plain, NULL);
}

static void send_all(void)
{
	while (transmit_batch(&sending, bench.rig.table, bench.rig.now_ns) > 0)
		;
}

static void test_every_tos_leaves(void)
{
	for (uint32_t copy_dscp = 0; copy_dscp < 2; copy_dscp++)
		for (int version = 4; version <= 6; version += 2) {
			open_sending(copy_dscp);
			for (uint32_t tos = 0; tos < 256; tos++)
				feed_tos(version, (uint8_t)tos);
			send_all();
			CHECK(fake.udp_out.count == 256);
			for (uint32_t tos = 0; tos < 256; tos++) {
				const struct fake_item *out = &fake.udp_out.items[tos];

				CHECK(out->tos == (copy_dscp ? tos : tos & 3) && tos_of(out->bytes) == tos);
			}
			close_sending();
		}
}

/* Neighbours share a message as far as they share what the message's header says. */
static void test_a_run_has_one_tos(void)
{
	static const uint8_t tos[] = {0, 0, 2, 2, EF | 2, 2, 3, 3, 0, EF, 0};

	for (uint32_t copy_dscp = 0; copy_dscp < 2; copy_dscp++) {
		open_sending(copy_dscp);
		for (size_t i = 0; i < sizeof(tos); i++)
			feed_tos(4, tos[i]);
		send_all();
		CHECK(fake.udp_out.count == sizeof(tos));
		CHECK(fake.udp_messages == (copy_dscp ? 8 : 4));
		close_sending();
	}
}

static void test_super_packet(void)
{
	struct virtio_net_hdr header = {.flags = VIRTIO_NET_HDR_F_NEEDS_CSUM,
					.gso_type = VIRTIO_NET_HDR_GSO_UDP_L4,
					.gso_size = 500,
					.csum_start = 20,
					.csum_offset = 6};
	size_t length;

	open_sending(0);
	length = make_outgoing(4, PACKET_CE, 5000);
	fake_keep(&fake.tun_in, bench.packet, length, &header, NULL);
	fake_latest(&fake.tun_in)->packets = 10;
	send_all();
	CHECK(fake.udp_out.count == 10 && fake.udp_messages == 1);
	for (uint32_t i = 0; i < 10; i++)
		CHECK(fake.udp_out.items[i].tos == PACKET_CE && tos_of(fake.udp_out.items[i].bytes) == PACKET_CE);
	close_sending();
}

static void test_cut_to_the_path(void)
{
	static const struct virtio_net_hdr plain;
	size_t length;

	open_sending(0);
	fake.path_mtu = 1300;
	fake.udp_longest_bytes = 1272;
	length = make_outgoing(4, EF | PACKET_ECT0, 3000);
	fake_keep(&fake.tun_in, bench.packet, length, &plain, NULL);
	send_all();
	CHECK(fake.udp_out.count == 3);
	for (uint32_t i = 0; i < fake.udp_out.count; i++)
		CHECK(fake.udp_out.items[i].tos == PACKET_ECT0);
	close_sending();
}

/* ---- in ---- */

#define DROPPED 0xff

/* RFC 6040, figure 4: what leaves, by what was sent (Not-ECT, ECT(1), ECT(0), CE) and what the datagram came with. */
static const uint8_t outcome[4][4] = {
	{PACKET_NOT_ECT, PACKET_NOT_ECT, PACKET_NOT_ECT, DROPPED},
	{PACKET_ECT1, PACKET_ECT1, PACKET_ECT1, PACKET_CE},
	{PACKET_ECT0, PACKET_ECT1, PACKET_ECT0, PACKET_CE},
	{PACKET_CE, PACKET_CE, PACKET_CE, PACKET_CE},
};

static size_t make_incoming(int version, uint8_t tos, size_t payload)
{
	size_t length = version == 4 ? make_udp(bench.packet, THEIRS(2, 7), OURS(5), payload)
				     : make_udp6(bench.packet, to6, from6, payload);

	set_tos(bench.packet, tos);
	return length;
}

static void test_every_pair_arrives(void)
{
	for (uint32_t i = 0; i < 2 * 16 * 2; i++) {
		int version = i & 32 ? 6 : 4;
		uint8_t inner = i & 3, outer = i >> 2 & 3, dscp = i & 16 ? EF : 0, expected = outcome[inner][outer];
		uint8_t whole[INNER_ROOM];
		size_t length;

		open_bench(UDPB_SOURCE_SUBNET);
		length = make_incoming(version, dscp | inner, 100);
		memcpy(whole, bench.packet, length);
		arrive(PEER(2), bench.packet, length);
		fake_latest(&fake.udp_in)->tos = 0x20 | outer; /* the outer DSCP is the underlay's business */
		CHECK(batch() == 1);
		CHECK(stat(STAT_rx_drop_ecn) == (expected == DROPPED) && fake.tun_out.count == (expected != DROPPED));
		if (expected != DROPPED) {
			const struct fake_item *out = &fake.tun_out.items[0];

			set_tos(whole, dscp | expected); /* with the right header checksum, and nothing else changed */
			CHECK(out->length == length && !memcmp(out->bytes, whole, length));
		}
		close_bench();
	}
}

/* One message, one outer header: all of its packets are marked, and those that stay alike are joined. */
static void test_a_message_of_several(void)
{
	uint8_t message[4 * 128];

	open_bench(UDPB_SOURCE_SUBNET);
	bench.rig.tun.offloads = UDPB_OFFLOAD_UDP_COALESCE;
	for (uint32_t i = 0; i < 4; i++) {
		CHECK(make_incoming(4, i == 2 ? PACKET_NOT_ECT : PACKET_ECT0, 100) == 128);
		put_32(bench.packet + 20, 0x10002000); /* one flow */
		put_16(bench.packet + 4, i);
		finish_transport(bench.packet, 128, 20, 17);
		seal(bench.packet);
		memcpy(message + i * 128, bench.packet, 128);
	}
	arrive(PEER(2), message, sizeof(message));
	fake_latest(&fake.udp_in)->segment = 128;
	fake_latest(&fake.udp_in)->packets = 4;
	fake_latest(&fake.udp_in)->tos = PACKET_CE;
	CHECK(batch() == 1 && stat(STAT_rx_drop_ecn) == 1 && stat(DELIVERED) == 3);
	CHECK(fake.tun_out.count == 2); /* the gap in the identifications keeps the last one alone */
	for (uint32_t i = 0; i < fake.tun_out.count; i++)
		CHECK(tos_of(fake.tun_out.items[i].bytes) == PACKET_CE && sum_16(0, fake.tun_out.items[i].bytes, 20) == 0xffff);
	bench.rig.tun.offloads = 0;
	close_bench();
}

int main(void)
{
	rig_ipv6(from6, 1, 5);
	rig_ipv6(to6, 2, 7);
	test_every_tos_leaves();
	test_a_run_has_one_tos();
	test_super_packet();
	test_cut_to_the_path();
	test_every_pair_arrives();
	test_a_message_of_several();
	return check_done();
}
