/* test_receive_merged: messages of several datagrams from the socket and super-packets to flannel0.
 *
 * What was written is taken apart again here, by code of the test's own: each flow must come out as it went in, packet by
 * packet and in order, whatever was joined on the way.
 */
#include "receive_rig.h"

#define FLOW_BYTES 12 /* both addresses and ports */
#define RECEIVED_MAX 4096

struct piece {
	uint8_t bytes[1500];
	size_t length;
	bool taken;
};

static struct piece *received;
static uint32_t received_count, written_packets;

static void open_merging(uint32_t offloads)
{
	open_bench(UDPB_SOURCE_SUBNET);
	bench.rig.tun.offloads = offloads;
	received_count = written_packets = 0;
}

static bool same_flow(const uint8_t *a, const uint8_t *b)
{
	return a[9] == b[9] && !memcmp(a + 12, b + 12, FLOW_BYTES);
}

/* Takes a written packet for the next received one of its flow, which it has to be. */
static void take_written(const uint8_t *bytes, size_t length)
{
	uint32_t i = 0;

	while (i < received_count && (received[i].taken || !same_flow(received[i].bytes, bytes)))
		i++;
	if (!CHECK(i < received_count))
		return;
	CHECK(received[i].length == length && !memcmp(received[i].bytes, bytes, length));
	received[i].taken = true;
	written_packets++;
}

/* Cuts what was written from write `from` on into packets as the kernel does, and compares. */
static void compare_written(uint32_t from)
{
	for (uint32_t i = from; i < fake.tun_out.count; i++) {
		const struct fake_item *item = &fake.tun_out.items[i];
		const struct virtio_net_hdr *header = &item->header;
		size_t size = header->gso_type ? header->gso_size : item->length, start = header->csum_start, headers;
		uint8_t segment[1500];

		if (!(header->flags & VIRTIO_NET_HDR_F_NEEDS_CSUM)) {
			CHECK(header->gso_type == VIRTIO_NET_HDR_GSO_NONE);
			take_written(item->bytes, item->length);
			continue;
		}
		if (!CHECK(start == 20 && size > 0 && get_16(item->bytes + 2) == item->length))
			continue;
		CHECK(sum_16(0, item->bytes, 20) == 0xffff);
		CHECK(header->csum_offset == checksum_offset(item->bytes[9]));
		headers = start + (item->bytes[9] == 6 ? (size_t)(item->bytes[start + 12] >> 4) * 4 : 8);
		CHECK(header->hdr_len == headers);
		for (size_t at = 0; at < item->length - headers; at += size)
			take_written(segment, make_segment(segment, item->bytes, item->length, start, size, at));
	}
}

/* A flow's next `payload` bytes in segments of `size`, as one message from peer 2 or, `apart`, in one each. */
static void arrive_flow(uint8_t protocol, uint16_t port, size_t size, size_t payload, bool apart)
{
	static uint8_t message[65536];
	size_t length = make_inner(bench.packet, THEIRS(2, 7), OURS(5), protocol, protocol == 6 ? DONT_FRAGMENT : 0, payload);
	size_t bytes = 0, first = 0;
	uint32_t count = 0;

	put_16(bench.packet + 20, port);
	put_16(bench.packet + 22, 80);
	if (protocol == 6)
		bench.packet[33] = 0x18; /* ACK and PSH */
	for (size_t at = 0; at < payload; at += size, count++) {
		struct piece *piece = &received[received_count++];

		piece->taken = false;
		piece->length = make_segment(piece->bytes, bench.packet, length, 20, size, at);
		if (apart)
			arrive(PEER(2), piece->bytes, piece->length);
		memcpy(message + bytes, piece->bytes, piece->length);
		bytes += piece->length;
		first = at ? first : piece->length;
	}
	if (apart)
		return;
	arrive(PEER(2), message, bytes);
	fake_latest(&fake.udp_in)->packets = count;
	fake_latest(&fake.udp_in)->segment = count > 1 ? (int)first : 0;
}

static void close_merging(void)
{
	bench.rig.tun.offloads = 0;
	fake.tun_out.faults_done = fake.tun_out.fault_count;
	close_bench();
}

/* Datagrams that the socket joined, and a TUN that takes none joined. */
static void test_messages(void)
{
	open_merging(0);
	arrive_flow(17, 1, 100, 1000, false);
	arrive_flow(6, 2, 1000, 4500, false);
	arrive_flow(17, 3, 500, 20, false);
	CHECK(batch() == 3);
	CHECK(stat(DELIVERED) == 16 && fake.tun_out.count == 16 && stat(STAT_rx_writes) == 16);
	CHECK(stat(STAT_rx_messages) == 3 && stat(STAT_rx_received) == 16);
	CHECK(atomic_load(&rig_peer(&bench.rig, 2)->rx_packets) == 16);
	CHECK(stat(STAT_rx_bytes) == atomic_load(&rig_peer(&bench.rig, 2)->rx_bytes));
	compare_written(0);
	CHECK(written_packets == received_count);
	close_merging();
}

/* A packet written from within a message leaves its neighbours as they were, whichever is written first. */
static void test_neighbours(void)
{
	open_merging(UDPB_OFFLOAD_TCP_COALESCE);
	for (uint32_t i = 0; i < 6; i++) {
		uint8_t message[2 * 240];
		size_t length = make_inner(bench.packet, THEIRS(2, 7), OURS(5), 6, DONT_FRAGMENT, 200);

		/* a TCP segment that goes on, so that its group is written first, and behind it one that stays alone */
		put_16(bench.packet + 20, 7);
		put_16(bench.packet + 22, 80);
		put_32(bench.packet + 24, i * 200);
		memset(bench.packet + 28, 0, 12);
		bench.packet[32] = 0x50;
		bench.packet[33] = 0x10;
		put_16(bench.packet + 4, 1000 + i);
		set_tos(bench.packet, 0);
		finish_transport(bench.packet, length, 20, 6);
		memcpy(message, bench.packet, length);
		received[received_count++] = (struct piece){.length = length};
		memcpy(received[received_count - 1].bytes, bench.packet, length);
		make_inner(bench.packet, THEIRS(2, 7), OURS(5), 17, DONT_FRAGMENT, 212);
		memcpy(message + length, bench.packet, length);
		received[received_count++] = (struct piece){.length = length};
		memcpy(received[received_count - 1].bytes, bench.packet, length);
		arrive(PEER(2), message, 2 * length);
		fake_latest(&fake.udp_in)->packets = 2;
		fake_latest(&fake.udp_in)->segment = (int)length;
	}
	CHECK(batch() == 6 && stat(DELIVERED) == 12 && fake.tun_out.count == 7);
	compare_written(0);
	CHECK(written_packets == received_count);
	close_merging();
}

/* Each datagram of a message is judged by itself. */
static void test_one_bad_among_good(void)
{
	open_merging(UDPB_OFFLOAD_TCP_COALESCE | UDPB_OFFLOAD_UDP_COALESCE);
	arrive_flow(17, 1, 100, 500, false);
	fake_latest(&fake.udp_in)->bytes[2 * 128 + 8] ^= 1; /* the third one's TTL */
	received[2].taken = true;
	CHECK(batch() == 1);
	CHECK(stat(DELIVERED) == 4 && stat(STAT_rx_drop_header_checksum) == 1);
	compare_written(0);
	CHECK(written_packets == 4);
	close_merging();
}

/* Messages that are written datagram by datagram: the next batch is so small that its writes do not take long. */
static void test_many_writes(void)
{
	for (uint32_t offloads = 0; offloads <= UDPB_OFFLOAD_UDP_COALESCE; offloads += UDPB_OFFLOAD_UDP_COALESCE) {
		open_merging(offloads);
		for (uint16_t i = 0; i < 20; i++)
			arrive_flow(17, i, 100, 3200, false);
		CHECK(batch() == 20 && stat(DELIVERED) == 20 * 32);
		CHECK(stat(STAT_rx_writes) == (offloads ? 20 : 20 * 32));
		if (offloads)
			CHECK(bench.receive.wanted == RECEIVE_BATCH_BYTES / (32 * 128 + 1));
		else
			CHECK(bench.receive.wanted >= 4 && bench.receive.wanted * 32 <= RECEIVE_BATCH_WRITES);
		compare_written(0);
		close_merging();
	}
}

static void test_stranger(void)
{
	open_merging(UDPB_OFFLOAD_UDP_COALESCE);
	arrive_flow(17, 1, 100, 500, false);
	fake_latest(&fake.udp_in)->address.sin_addr.s_addr = htonl(0xc6336401);
	CHECK(batch() == 1 && stat(STAT_rx_drop_unknown_peer) == 5 && fake.tun_out.count == 0);
	close_merging();
}

static void test_joined(void)
{
	open_merging(UDPB_OFFLOAD_TCP_COALESCE | UDPB_OFFLOAD_UDP_COALESCE);
	arrive_flow(6, 1, 1000, 9500, true);
	arrive_flow(17, 2, 1000, 9500, true);
	CHECK(batch() == 20 && stat(DELIVERED) == 20);
	CHECK(fake.tun_out.count == 2 && stat(STAT_rx_writes) == 2);
	CHECK(fake.tun_out.items[0].header.gso_type == VIRTIO_NET_HDR_GSO_TCPV4);
	CHECK(fake.tun_out.items[1].header.gso_type == VIRTIO_NET_HDR_GSO_UDP_L4);
	CHECK(stat(STAT_rx_bytes) == 2 * 9500 + 10 * 40 + 10 * 28); /* inner bytes as they came */
	compare_written(0);
	CHECK(written_packets == 20);
	close_merging();
}

/* A kernel that refuses super-packets of a kind: each packet is written all the same, and none is joined again. */
static void test_refused(void)
{
	open_merging(UDPB_OFFLOAD_TCP_COALESCE | UDPB_OFFLOAD_UDP_COALESCE);
	fake_fault(&fake.tun_out, 0, EINVAL, 1);
	arrive_flow(17, 1, 100, 500, true);
	CHECK(batch() == 5);
	CHECK(stat(STAT_rx_coalesce_refused) == 1 && stat(DELIVERED) == 5 && fake.tun_out.count == 5);
	CHECK(bench.rig.tun.offloads == UDPB_OFFLOAD_TCP_COALESCE);
	arrive_flow(17, 1, 100, 500, true);
	arrive_flow(6, 2, 100, 500, true);
	CHECK(batch() == 10 && fake.tun_out.count == 5 + 5 + 1 && stat(STAT_rx_coalesce_refused) == 1);
	compare_written(0);
	CHECK(written_packets == 15);
	close_merging();
}

/* What a super-packet that is lost counts as. */
static void test_lost_together(void)
{
	open_merging(UDPB_OFFLOAD_TCP_COALESCE);
	fake_fault(&fake.tun_out, 0, EIO, 1);
	arrive_flow(6, 1, 100, 500, true);
	arrive_udp(PEER(2), THEIRS(2, 9));
	CHECK(batch() == 6 && stat(STAT_rx_drop_tun_down) == 5 && stat(DELIVERED) == 1);
	close_merging();
}

/* Refused as a whole, and then the device goes in the middle of its packets. */
static void test_gone_while_apart(void)
{
	open_merging(UDPB_OFFLOAD_TCP_COALESCE);
	fake_fault(&fake.tun_out, 0, EINVAL, 1);
	fake_fault(&fake.tun_out, 2, EBADFD, 3);
	arrive_flow(6, 1, 100, 500, true);
	CHECK(batch() == -EBADFD);
	CHECK(stat(DELIVERED) == 2 && stat(STAT_rx_drop_tun_down) == 3);
	close_merging();
}

static void test_at_random(void)
{
	for (int round = 0; round < 200; round++) {
		open_merging((random_below(4) ? UDPB_OFFLOAD_TCP_COALESCE : 0) |
			     (random_below(4) ? UDPB_OFFLOAD_UDP_COALESCE : 0));
		if (random_below(2))
			fake_fault(&fake.tun_out, random_below(20), EINVAL, 1); /* ... of a single packet: dropped */
		for (uint32_t step = 0; step < 4; step++) {
			for (uint32_t i = random_below(12); i > 0; i--)
				arrive_flow(random_below(2) ? 6 : 17, (uint16_t)random_below(4), 200,
					    1 + random_below(3000), random_below(2));
			while (batch() > 0)
				;
		}
		CHECK(stat(STAT_rx_received) == received_count);
		if (stat(DELIVERED) == received_count) {
			compare_written(0);
			CHECK(written_packets == received_count);
		} else { /* one that was written by itself was refused */
			CHECK(stat(STAT_rx_drop_tun_refused) == received_count - stat(DELIVERED));
		}
		close_merging();
	}
}

int main(void)
{
	received = malloc(RECEIVED_MAX * sizeof(*received));
	test_messages();
	test_neighbours();
	test_one_bad_among_good();
	test_many_writes();
	test_stranger();
	test_joined();
	test_refused();
	test_lost_together();
	test_gone_while_apart();
	test_at_random();
	free(received);
	return check_done();
}
