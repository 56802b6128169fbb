/* peer: see peer.h.
 *
 * The registry is a chained hash table that grows by doubling. A map holds its peers in an array (the index is what the
 * longest-prefix table stores) and finds them by address in an open-addressed index of that array, at most half full.
 */
#include "peer.h"

#include <errno.h>
#include <stdlib.h>

#define REGISTRY_FIRST_BUCKETS 64
#define SLOT_FREE UINT32_MAX

struct peer_registry {
	struct peer **buckets;
	size_t bucket_count; /* a power of two */
	size_t count;
};

struct peer_map {
	struct peer_registry *registry;
	struct peer **peers;
	uint32_t *slots; /* indices into peers by hash of the address, or SLOT_FREE */
	size_t slot_mask;
	size_t count, capacity;
};

/* Multiplicative hashing: peers of one underlay differ in their low address bits, which stand last in memory. */
static size_t hash(uint32_t address_be)
{
	uint64_t product = (uint64_t)address_be * 0x9e3779b97f4a7c15ULL;

	return (size_t)(product >> 32);
}

int peer_registry_new(struct peer_registry **out)
{
	struct peer_registry *registry = calloc(1, sizeof(*registry));

	if (!registry)
		return -ENOMEM;
	registry->bucket_count = REGISTRY_FIRST_BUCKETS;
	registry->buckets = calloc(registry->bucket_count, sizeof(*registry->buckets));
	if (!registry->buckets) {
		free(registry);
		return -ENOMEM;
	}
	*out = registry;
	return 0;
}

void peer_registry_free(struct peer_registry *registry)
{
	if (!registry)
		return;
	free(registry->buckets);
	free(registry);
}

/* Doubles the buckets; without memory the chains just stay longer. */
static void registry_grow(struct peer_registry *registry)
{
	size_t wanted = registry->bucket_count * 2;
	struct peer **buckets = calloc(wanted, sizeof(*buckets));

	if (!buckets)
		return;
	for (size_t i = 0; i < registry->bucket_count; i++) {
		struct peer *peer = registry->buckets[i];

		while (peer) {
			struct peer *next = peer->next;
			size_t bucket = hash(peer->address_be) & (wanted - 1);

			peer->next = buckets[bucket];
			buckets[bucket] = peer;
			peer = next;
		}
	}
	free(registry->buckets);
	registry->buckets = buckets;
	registry->bucket_count = wanted;
}

static struct peer *registry_take(struct peer_registry *registry, uint32_t address_be, uint16_t port_be)
{
	struct peer **bucket = &registry->buckets[hash(address_be) & (registry->bucket_count - 1)];
	struct peer *peer;

	for (peer = *bucket; peer; peer = peer->next) {
		if (peer->address_be == address_be && peer->port_be == port_be) {
			peer->references++;
			return peer;
		}
	}
	peer = calloc(1, sizeof(*peer));
	if (!peer)
		return NULL;
	peer->address_be = address_be;
	peer->port_be = port_be;
	peer->references = 1;
	peer->next = *bucket;
	*bucket = peer;
	if (++registry->count > registry->bucket_count)
		registry_grow(registry);
	return peer;
}

static void registry_drop(struct peer_registry *registry, struct peer *peer)
{
	struct peer **link = &registry->buckets[hash(peer->address_be) & (registry->bucket_count - 1)];

	if (--peer->references > 0)
		return;
	while (*link != peer)
		link = &(*link)->next;
	*link = peer->next;
	registry->count--;
	free(peer);
}

int peer_map_new(struct peer_registry *registry, size_t capacity, struct peer_map **out)
{
	struct peer_map *map = calloc(1, sizeof(*map));
	size_t slot_count = 16;

	if (!map)
		return -ENOMEM;
	while (slot_count < 2 * capacity)
		slot_count *= 2;
	map->registry = registry;
	map->capacity = capacity;
	map->slot_mask = slot_count - 1;
	map->peers = calloc(capacity ? capacity : 1, sizeof(*map->peers));
	map->slots = malloc(slot_count * sizeof(*map->slots));
	if (!map->peers || !map->slots) {
		peer_map_free(map);
		return -ENOMEM;
	}
	for (size_t i = 0; i < slot_count; i++)
		map->slots[i] = SLOT_FREE;
	*out = map;
	return 0;
}

void peer_map_free(struct peer_map *map)
{
	if (!map)
		return;
	for (size_t i = 0; i < map->count; i++)
		registry_drop(map->registry, map->peers[i]);
	free(map->peers);
	free(map->slots);
	free(map);
}

int64_t peer_map_add(struct peer_map *map, uint32_t address_be, uint16_t port_be)
{
	size_t slot = hash(address_be) & map->slot_mask;
	struct peer *peer;

	for (; map->slots[slot] != SLOT_FREE; slot = (slot + 1) & map->slot_mask) {
		peer = map->peers[map->slots[slot]];
		if (peer->address_be == address_be && peer->port_be == port_be)
			return map->slots[slot];
	}
	if (map->count == map->capacity)
		return -E2BIG;
	peer = registry_take(map->registry, address_be, port_be);
	if (!peer)
		return -ENOMEM;
	map->slots[slot] = (uint32_t)map->count;
	map->peers[map->count] = peer;
	return (int64_t)map->count++;
}

size_t peer_map_count(const struct peer_map *map)
{
	return map->count;
}

struct peer *peer_map_at(const struct peer_map *map, uint32_t index)
{
	return map->peers[index];
}

struct peer *peer_map_find(const struct peer_map *map, uint32_t address_be)
{
	size_t slot = hash(address_be) & map->slot_mask;

	for (; map->slots[slot] != SLOT_FREE; slot = (slot + 1) & map->slot_mask) {
		struct peer *peer = map->peers[map->slots[slot]];

		if (peer->address_be == address_be)
			return peer;
	}
	return NULL;
}

/* The two words of a path MTU are written and read in this order, lest another queue believe an expired one anew: whoever
 * sees the new end sees the new MTU. Who sees the old end may see either MTU, so what is forgotten stays where it is. */
uint32_t peer_path_mtu(const struct peer *peer, int64_t now_ns)
{
	if (atomic_load_explicit(&peer->path_mtu_until_ns, memory_order_acquire) <= now_ns)
		return UINT32_MAX;
	return atomic_load_explicit(&peer->path_mtu_bytes, memory_order_relaxed);
}

void peer_learn_path_mtu(struct peer *peer, uint32_t mtu_bytes, int64_t until_ns)
{
	atomic_store_explicit(&peer->path_mtu_bytes, mtu_bytes, memory_order_relaxed);
	atomic_store_explicit(&peer->path_mtu_until_ns, until_ns, memory_order_release);
}

void peer_forget_path_mtu(struct peer *peer)
{
	atomic_store_explicit(&peer->path_mtu_until_ns, 0, memory_order_relaxed);
}

bool peer_path_mtu_is_old(const struct peer *peer, int64_t now_ns)
{
	return atomic_load_explicit(&peer->path_mtu_ask_ns, memory_order_relaxed) <= now_ns;
}

void peer_path_mtu_asked(struct peer *peer, int64_t again_ns)
{
	atomic_store_explicit(&peer->path_mtu_ask_ns, again_ns, memory_order_relaxed);
}

void peer_refuse_segments(struct peer *peer, int64_t until_ns)
{
	atomic_store_explicit(&peer->whole_until_ns, until_ns, memory_order_relaxed);
}

void peer_refuse_all(struct peer *peer, int64_t until_ns)
{
	atomic_store_explicit(&peer->refused_until_ns, until_ns, memory_order_relaxed);
}

void peer_dropped(struct peer *peer, uint64_t packets, int64_t now_ns)
{
	atomic_fetch_add_explicit(&peer->tx_dropped, packets, memory_order_relaxed);
	atomic_store_explicit(&peer->dropped_ns, now_ns, memory_order_relaxed);
}

void peer_sent(struct peer *peer, uint64_t packets, uint64_t bytes, int64_t now_ns)
{
	int64_t last_ns = atomic_load_explicit(&peer->sent_ns, memory_order_relaxed);

	atomic_fetch_add_explicit(&peer->tx_packets, packets, memory_order_relaxed);
	atomic_fetch_add_explicit(&peer->tx_bytes, bytes, memory_order_relaxed);
	atomic_store_explicit(&peer->sent_ns, now_ns, memory_order_relaxed);
	if (atomic_load_explicit(&peer->asked_ns, memory_order_relaxed) == 0 || now_ns - last_ns >= PEER_PAUSE_NS)
		atomic_store_explicit(&peer->asked_ns, now_ns, memory_order_relaxed);
}

void peer_heard(struct peer *peer, uint64_t packets, uint64_t bytes, int64_t now_ns)
{
	atomic_fetch_add_explicit(&peer->rx_packets, packets, memory_order_relaxed);
	atomic_fetch_add_explicit(&peer->rx_bytes, bytes, memory_order_relaxed);
	atomic_store_explicit(&peer->heard_ns, now_ns, memory_order_relaxed);
	atomic_store_explicit(&peer->asked_ns, 0, memory_order_relaxed);
}

int64_t peer_unanswered_ns(const struct peer *peer, int64_t now_ns)
{
	int64_t asked_ns = atomic_load_explicit(&peer->asked_ns, memory_order_relaxed);
	int64_t sent_ns = atomic_load_explicit(&peer->sent_ns, memory_order_relaxed);

	return asked_ns == 0 || now_ns - sent_ns >= PEER_PAUSE_NS || sent_ns < asked_ns ? 0 : sent_ns - asked_ns;
}
