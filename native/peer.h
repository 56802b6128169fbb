/* peer: what outlives a table swap: each peer's counters and path MTU; and a peer by its outer address.
 *
 * The *registry* owns every peer and belongs to the publisher: all calls but peer_map_at and peer_map_find are made by
 * one thread at a time. A *map* is one publication's view of it, immutable once built, read by any number of queues; a
 * peer lives for as long as some map holds it. It must not know fds, packets or prefixes.
 */
#ifndef UDPB_PEER_H
#define UDPB_PEER_H

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

struct peer {
	uint32_t address_be;
	uint16_t port_be;
	_Atomic uint32_t path_mtu_bytes;      /* of the outer path; 0 where none was learned */
	_Atomic int64_t path_mtu_until_ns;    /* CLOCK_MONOTONIC */
	_Atomic uint64_t tx_packets, tx_bytes; /* inner; several queues may add */
	_Atomic uint64_t rx_packets, rx_bytes;
	_Atomic int64_t heard_ns;             /* last good packet, CLOCK_MONOTONIC; 0 for never */
	uint32_t references;                  /* maps that hold it; the registry's */
	struct peer *next;                    /* in its hash chain; the registry's */
};

struct peer_registry;
struct peer_map;

int peer_registry_new(struct peer_registry **out); /* 0 or -ENOMEM */
void peer_registry_free(struct peer_registry *registry); /* after every map; NULL is allowed */

/* An empty map with room for `capacity` peers; borrows the registry. 0 or -ENOMEM. */
int peer_map_new(struct peer_registry *registry, size_t capacity, struct peer_map **out);

/* The index of the peer with this address and port, added if the map lacks it; or -ENOMEM, or -E2BIG at capacity. */
int64_t peer_map_add(struct peer_map *map, uint32_t address_be, uint16_t port_be);

void peer_map_free(struct peer_map *map); /* lets go of its peers; NULL is allowed */

size_t peer_map_count(const struct peer_map *map);
struct peer *peer_map_at(const struct peer_map *map, uint32_t index); /* index below the count */
struct peer *peer_map_find(const struct peer_map *map, uint32_t address_be); /* any port; NULL when unknown */

/* The path MTU still believed at `now_ns`, or UINT32_MAX. */
uint32_t peer_path_mtu(const struct peer *peer, int64_t now_ns);

/* Believes a path MTU until `until_ns`. */
void peer_learn_path_mtu(struct peer *peer, uint32_t mtu_bytes, int64_t until_ns);

void peer_sent(struct peer *peer, uint64_t packets, uint64_t bytes);
void peer_heard(struct peer *peer, uint64_t packets, uint64_t bytes, int64_t now_ns);

#endif
