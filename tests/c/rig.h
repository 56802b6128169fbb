/* rig: one direction of the dataplane on a bench: fake fds, counters, and a small route table that can be replaced.
 *
 * Owns what transmit and receive are given, and the check of the law. The fake network: we are 192.0.2.1 with the local
 * subnet 10.0.1.0/24 and flannel0's 10.0.0.1; each *peer* number n is 192.0.2.n with the subnets 10.0.n.0/24 and
 * fd00:0:0:n::/64. It must not know how a direction works inside.
 */
#ifndef RIG_H
#define RIG_H

#include <arpa/inet.h>
#include <stdatomic.h>

#include "check.h"
#include "fake_io.h"
#include "inner.h"
#include "stats.h"
#include "table.h"

#define RIG_START_NS 1000000000000LL /* a clock that has run for a while */
#define RIG_PORT 8285
#define RIG_ROUTES 128
#define TUN_ADDRESS 0x0a000001
#define LOCAL_ADDRESS 0xc0000201

#define OURS(host) (0x0a000100U + (host))
#define THEIRS(n, host) (0x0a000000U + (n) * 256U + (host))
#define PEER(n) (0xc0000200U + (n))
#define SECONDS_NS(s) ((int64_t)(s) * 1000000000LL)
#define MS_NS(ms) ((int64_t)(ms) * 1000000LL)

struct rig {
	struct tun_io tun;
	struct udp_io udp;
	struct stats stats;
	struct peer_registry *registry;
	struct table *table;
	int64_t now_ns;
};

struct rig_route {
	uint32_t net; /* host order; with version 6 the number n of fd00:0:0:n:: */
	uint8_t bits;
	uint8_t version;
	uint32_t peer; /* host order; 0: local */
	uint16_t port;
};

static inline void rig_ipv6(uint8_t *out, uint8_t n, uint8_t host)
{
	memset(out, 0, 16);
	out[0] = 0xfd;
	out[7] = n;
	out[15] = host;
}

static inline void rig_free_table(struct rig *rig)
{
	if (rig->table) {
		fib_free(rig->table->fib);
		peer_map_free(rig->table->peers);
		free(rig->table);
	}
	rig->table = NULL;
}

/* Replaces the table as a publication does: the new one is whole before the old one goes. */
static inline void rig_publish(struct rig *rig, const struct rig_route *routes, size_t count)
{
	struct fib_entry entries[RIG_ROUTES] = {0};
	struct table *table = calloc(1, sizeof(*table));

	CHECK(count <= RIG_ROUTES && peer_map_new(rig->registry, count, &table->peers) == 0);
	for (size_t i = 0; i < count; i++) {
		entries[i].version = routes[i].version;
		entries[i].prefix_bits = routes[i].bits;
		if (routes[i].version == 4)
			put_32(entries[i].net, routes[i].net);
		else
			rig_ipv6(entries[i].net, (uint8_t)routes[i].net, 0);
		entries[i].value = routes[i].peer ? (uint32_t)peer_map_add(table->peers, htonl(routes[i].peer),
									   htons(routes[i].port))
						  : TABLE_LOCAL;
	}
	CHECK(fib_build(entries, count, &table->fib) == 0);
	rig_free_table(rig);
	rig->table = table;
}

static inline void rig_open(struct rig *rig)
{
	static const struct rig_route routes[] = {
		{OURS(0), 24, 4, 0, 0},
		{TUN_ADDRESS, 32, 4, 0, 0},
		{1, 64, 6, 0, 0},
		{THEIRS(2, 0), 24, 4, PEER(2), RIG_PORT},
		{2, 64, 6, PEER(2), RIG_PORT},
		{THEIRS(3, 0), 24, 4, PEER(3), RIG_PORT + 1},
	};

	memset(rig, 0, sizeof(*rig));
	rig->now_ns = RIG_START_NS;
	fake_open(&rig->tun, &rig->udp);
	CHECK(peer_registry_new(&rig->registry) == 0);
	rig_publish(rig, routes, sizeof(routes) / sizeof(*routes));
}

static inline struct udpb_config rig_config(uint32_t source_check)
{
	return (struct udpb_config){.tun_address_be = htonl(TUN_ADDRESS),
				    .source_check = source_check};
}

static inline void rig_close(struct rig *rig)
{
	rig_free_table(rig);
	peer_registry_free(rig->registry);
	fake_reset();
}

static inline uint64_t rig_stat(const struct rig *rig, enum stat_id id)
{
	return atomic_load(&rig->stats.value[id]);
}

static inline struct peer *rig_peer(const struct rig *rig, uint32_t n)
{
	return peer_map_find(rig->table->peers, htonl(PEER(n)));
}

/* The sum of a direction's counters of one kind, found by their description alone. */
static inline uint64_t law_sum(const uint64_t *values, uint8_t direction, uint8_t kind)
{
	uint64_t sum = 0;

	for (uint32_t i = 0; i < udpb_counters(); i++) {
		struct udpb_counter info;

		if (udpb_counter_info(i, &info) == 0 && info.direction == direction && info.kind == kind)
			sum += values[i];
	}
	return sum;
}

/* The law: received = delivered + dropped + in flight. */
static inline bool law_holds(const uint64_t *values, uint8_t direction, uint64_t in_flight)
{
	return law_sum(values, direction, UDPB_RECEIVED) == law_sum(values, direction, UDPB_DELIVERED) +
								    law_sum(values, direction, UDPB_DROPPED) + in_flight;
}

/* The law, and that what was received is what the fake gave out. The other direction has counted nothing. */
static inline void rig_check_law(const struct rig *rig, uint8_t direction, uint64_t in_flight)
{
	uint64_t given = fake_given(direction == UDPB_TX ? &fake.tun_in : &fake.udp_in);
	uint64_t values[STAT_COUNT];

	for (uint32_t i = 0; i < STAT_COUNT; i++)
		values[i] = atomic_load(&rig->stats.value[i]);
	CHECK(law_holds(values, direction, in_flight));
	CHECK(law_sum(values, direction, UDPB_RECEIVED) == given);
	for (uint8_t kind = UDPB_RECEIVED; kind <= UDPB_NOTE; kind++)
		CHECK(law_sum(values, !direction, kind) == 0);
}

#endif
