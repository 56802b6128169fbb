/* transmit_rig: the bench of rig.h with a struct transmit on it, for the tests of that direction.
 *
 * Owns what every scenario does: put packets into the TUN, move batches until they are gone, and look at what was sent.
 * Each scenario ends in bench_close, which checks the law and that full batches still pass in order.
 */
#ifndef TRANSMIT_RIG_H
#define TRANSMIT_RIG_H

#include "rig.h"
#include "transmit.h"

struct bench {
	struct rig rig;
	struct transmit transmit;
	uint8_t *arena;             /* exactly: the sanitizer sees a byte too many */
	uint8_t packet[INNER_ROOM]; /* scratch */
};

static inline void bench_open(struct bench *b)
{
	struct udpb_config config = rig_config(UDPB_SOURCE_SUBNET);

	rig_open(&b->rig);
	b->arena = malloc(TRANSMIT_ARENA_BYTES);
	transmit_init(&b->transmit, &b->rig.tun, &b->rig.udp, &b->rig.stats, &config, b->arena);
}

/* Counts what waits as dropped and takes everything down. */
static inline void bench_release(struct bench *b)
{
	transmit_release(&b->transmit);
	rig_check_law(&b->rig, UDPB_TX, 0);
	rig_close(&b->rig);
	free(b->arena);
}

static inline void feed_with(const uint8_t *bytes, size_t length, struct virtio_net_hdr header)
{
	fake_keep(&fake.tun_in, bytes, length, &header, NULL);
}

static inline void feed(const uint8_t *bytes, size_t length)
{
	feed_with(bytes, length, (struct virtio_net_hdr){0});
}

/* Small packets from us to peer n, told apart by their payload. */
static inline void feed_udp(struct bench *b, uint32_t n, uint32_t count)
{
	while (count-- > 0)
		feed(b->packet, make_udp(b->packet, OURS(5), THEIRS(n, 7), 32));
}

static inline uint64_t bench_stat(const struct bench *b, enum stat_id id)
{
	return rig_stat(&b->rig, id);
}

static inline uint32_t bench_in_flight(const struct bench *b)
{
	uint32_t in_flight = atomic_load(&b->transmit.in_flight);

	CHECK((in_flight > 0) == (transmit_blocked(&b->transmit) != 0));
	return in_flight;
}

static inline int bench_batch(struct bench *b)
{
	int result = transmit_batch(&b->transmit, b->rig.table, b->rig.now_ns);

	rig_check_law(&b->rig, UDPB_TX, bench_in_flight(b));
	return result;
}

static inline void bench_resume(struct bench *b)
{
	transmit_resume(&b->transmit, b->rig.table, b->rig.now_ns);
	rig_check_law(&b->rig, UDPB_TX, bench_in_flight(b));
}

/* Moves all that waits in the TUN; the socket is not to be full. Returns how many packets there were. */
static inline uint32_t bench_drain(struct bench *b)
{
	uint32_t total = 0;
	int found;

	while ((found = bench_batch(b)) > 0) {
		total += (uint32_t)found;
		if (!CHECK(!transmit_blocked(&b->transmit)))
			break;
	}
	CHECK(found == 0);
	return total;
}

/* Whether datagram `sent` is packet `read`, to peer n's public address. */
static inline bool sent_is(uint32_t sent, uint32_t read, uint32_t n)
{
	const struct fake_item *datagram = &fake.udp_out.items[sent], *packet = &fake.tun_in.items[read];

	return sent < fake.udp_out.count && datagram->length == packet->length &&
	       !memcmp(datagram->bytes, packet->bytes, packet->length) && datagram->address.sin_family == AF_INET &&
	       datagram->address.sin_addr.s_addr == htonl(PEER(n)) &&
	       datagram->address.sin_port == htons((uint16_t)(RIG_PORT + n - 2));
}

/* Whether what was written to the TUN is this ICMP unreachable about packet `read`, complete and valid. */
static inline bool written_is_icmp(uint32_t written, uint32_t read, uint8_t code, uint32_t mtu)
{
	static const struct virtio_net_hdr no_offload;
	const struct fake_item *icmp = &fake.tun_out.items[written], *about = &fake.tun_in.items[read];
	size_t quoted = about->length < 548 ? about->length : 548;
	const uint8_t *bytes = icmp->bytes;

	return written < fake.tun_out.count && icmp->length == 28 + quoted && bytes[0] == 0x45 &&
	       !memcmp(&icmp->header, &no_offload, sizeof(no_offload)) && get_16(bytes + 2) == icmp->length &&
	       sum_16(0, bytes, 20) == 0xffff && bytes[9] == 1 && get_32(bytes + 12) == TUN_ADDRESS &&
	       !memcmp(bytes + 16, about->bytes + 12, 4) && bytes[20] == 3 && bytes[21] == code &&
	       transport_sum(bytes, icmp->length) == 0xffff && get_16(bytes + 24) == 0 && get_16(bytes + 26) == mtu &&
	       !memcmp(bytes + 28, about->bytes, quoted);
}

/* Ends a scenario. Whatever it did, three full batches in a row still pass, in order and byte for byte: nothing was lost
 * on the way, and nothing is left over. */
static inline void bench_close(struct bench *b)
{
	uint32_t read = fake.tun_in.count, sent = fake.udp_out.count;
	uint64_t delivered = bench_stat(b, STAT_tx_delivered);

	CHECK(!transmit_blocked(&b->transmit));
	fake.udp_longest_bytes = 0;
	fake.udp_per_call = 0;
	fake.udp_segments_max = 0;
	b->rig.now_ns += SECONDS_NS(3600); /* nothing learned is remembered for as long */
	feed_udp(b, 2, 3 * TRANSMIT_PACKETS);
	CHECK(bench_drain(b) == 3 * TRANSMIT_PACKETS);
	for (uint32_t i = 0; i < 3 * TRANSMIT_PACKETS; i++)
		CHECK(sent_is(sent + i, read + i, 2));
	CHECK(bench_stat(b, STAT_tx_delivered) == delivered + 3 * TRANSMIT_PACKETS);
	CHECK(bench_stat(b, STAT_tx_drop_closed) == 0);
	bench_release(b);
}

#endif
