/* peer: what outlives a table swap: each peer's counters and path MTU; and a peer by its outer address.
 *
 * The *registry* owns every peer and belongs to the publisher: all calls but peer_map_at and peer_map_find are made by
 * one thread at a time. A *map* is one publication's view of it, immutable once built, read by any number of queues; a
 * peer lives for as long as some map holds it. It must not know fds, packets or prefixes.
 */
#ifndef UDPB_PEER_H
#define UDPB_PEER_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct peer {
	uint32_t address_be;
	uint16_t port_be;
	_Atomic uint32_t path_mtu_bytes;      /* of the outer path, as the kernel says; 0 where none was learned */
	_Atomic int64_t path_mtu_until_ns;    /* CLOCK_MONOTONIC, as the next */
	_Atomic int64_t path_mtu_ask_ns;      /* from then on the kernel is to be asked again */
	_Atomic uint64_t tx_packets, tx_bytes; /* inner; several queues may add */
	_Atomic uint64_t rx_packets, rx_bytes;
	_Atomic uint64_t tx_dropped;          /* inner packets for which there was no room on the way to it */
	_Atomic int64_t dropped_ns;           /* when the last of them was, CLOCK_MONOTONIC; 0 for never */
	_Atomic int64_t whole_until_ns;       /* until then the way to it refuses UDP_SEGMENT; 0 for never */
	_Atomic int64_t refused_until_ns;     /* until then the way to it refuses single datagrams as well; 0 for never */
	_Atomic int64_t heard_ns;             /* last good packet, CLOCK_MONOTONIC; 0 for never */
	_Atomic int64_t sent_ns;              /* last packet for it, CLOCK_MONOTONIC; 0 for never */
	_Atomic int64_t asked_ns;             /* the first of those since it was heard or there was a pause; 0 for none */
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

/* No path between nodes is narrower (Linux, tunnels and IPv6 links all take as much): who says so has made it up, or it
 * does no harm to let routers cut what is longer. */
#define PEER_PATH_MTU_LEAST 1280

/* What is believed of a path MTU that the kernel knows. */
static inline uint32_t peer_plausible_mtu(uint32_t mtu_bytes)
{
	return mtu_bytes < PEER_PATH_MTU_LEAST ? PEER_PATH_MTU_LEAST : mtu_bytes;
}

/* The path MTU that the kernel is still thought to know at `now_ns`, or UINT32_MAX. */
uint32_t peer_path_mtu(const struct peer *peer, int64_t now_ns);

/* Remembers a path MTU until `until_ns`. */
void peer_learn_path_mtu(struct peer *peer, uint32_t mtu_bytes, int64_t until_ns);

/* None is known any more. */
void peer_forget_path_mtu(struct peer *peer);

/* Whether the kernel is to be asked whether it still knows that. */
bool peer_path_mtu_is_old(const struct peer *peer, int64_t now_ns);

/* It was asked just now; the next time is `again_ns`. */
void peer_path_mtu_asked(struct peer *peer, int64_t again_ns);

/* Whether the way to the peer is thought to refuse UDP_SEGMENT. */
static inline int peer_refuses_segments(const struct peer *peer, int64_t now_ns)
{
	return atomic_load_explicit(&peer->whole_until_ns, memory_order_relaxed) > now_ns;
}

void peer_refuse_segments(struct peer *peer, int64_t until_ns); /* 0: it does not */

/* Whether the way to the peer is thought to refuse datagrams one by one, too. */
static inline int peer_refuses_all(const struct peer *peer, int64_t now_ns)
{
	return atomic_load_explicit(&peer->refused_until_ns, memory_order_relaxed) > now_ns;
}

void peer_refuse_all(struct peer *peer, int64_t until_ns);

/* Counts packets dropped for want of room on the way to the peer. */
void peer_dropped(struct peer *peer, uint64_t packets, int64_t now_ns);

void peer_sent(struct peer *peer, uint64_t packets, uint64_t bytes, int64_t now_ns);
void peer_heard(struct peer *peer, uint64_t packets, uint64_t bytes, int64_t now_ns);

/* Who sends nothing for so long sends no more. The first attempts of a TCP connection are at most 8 s apart. */
#define PEER_PAUSE_NS 10000000000LL

/* How long packets have been sent to it while no good one came from it; 0 while none is sent. */
int64_t peer_unanswered_ns(const struct peer *peer, int64_t now_ns);

#endif
