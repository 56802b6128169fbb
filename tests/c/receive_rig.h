/* receive_rig: the bench of rig.h with a struct receive on it, for the tests of that direction.
 *
 * Owns what every scenario does: let datagrams arrive, move a batch, and look at what was written.
 */
#ifndef RECEIVE_RIG_H
#define RECEIVE_RIG_H

#include "receive.h"
#include "rig.h"

#define DELIVERED STAT_rx_delivered

static struct {
	struct rig rig;
	struct receive receive;
	uint8_t *arena; /* exactly: the sanitizer sees a byte too many */
	uint8_t packet[INNER_ROOM];
} bench;

static inline void open_bench(uint32_t source_check)
{
	struct udpb_config config = rig_config(source_check);

	rig_open(&bench.rig);
	bench.arena = malloc(RECEIVE_ARENA_BYTES);
	receive_init(&bench.receive, &bench.rig.tun, &bench.rig.udp, &bench.rig.stats, &config, bench.arena);
}

static inline uint64_t stat(enum stat_id id)
{
	return rig_stat(&bench.rig, id);
}

static inline void arrive(uint32_t outer, const uint8_t *bytes, size_t length)
{
	struct sockaddr_in from = {
		.sin_family = AF_INET, .sin_port = htons(40000), .sin_addr.s_addr = htonl(outer)};

	fake_keep(&fake.udp_in, bytes, length, NULL, &from);
}

/* A datagram from `outer` with a small packet from `source` to us. */
static inline void arrive_udp(uint32_t outer, uint32_t source)
{
	arrive(outer, bench.packet, make_udp(bench.packet, source, OURS(5), 32));
}

static inline int batch(void)
{
	int result = receive_batch(&bench.receive, bench.rig.table, bench.rig.now_ns);

	rig_check_law(&bench.rig, UDPB_RX, 0);
	return result;
}

/* Whether what was written is what was received, without offloads. */
static inline bool written_is(uint32_t written, uint32_t received)
{
	static const struct virtio_net_hdr no_offload;
	const struct fake_item *out = &fake.tun_out.items[written], *in = &fake.udp_in.items[received];

	return written < fake.tun_out.count && out->length == in->length && !memcmp(out->bytes, in->bytes, in->length) &&
	       !memcmp(&out->header, &no_offload, sizeof(no_offload));
}

/* Whatever happened before, more than a full batch passes. */
static inline void close_bench(void)
{
	uint32_t received = fake.udp_in.count, written = fake.tun_out.count;

	for (int i = 0; i < 2 * RECEIVE_MESSAGES; i++)
		arrive_udp(PEER(2), THEIRS(2, 7));
	while (batch() > 0)
		;
	CHECK(fake.tun_out.count == written + 2 * RECEIVE_MESSAGES);
	for (uint32_t i = 0; i < 2 * RECEIVE_MESSAGES; i++)
		CHECK(written_is(written + i, received + i));
	rig_close(&bench.rig);
	free(bench.arena);
}

#endif
