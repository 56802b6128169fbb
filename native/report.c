/* report: what is told of the handle behind udpb.h: counters, the last error, peers; and how a successor goes on with them.
 *
 * Reads what queues write while they turn, value by value: no two of them are of the same moment. Must not change a
 * route or a queue.
 */
#include <errno.h>
#include <string.h>
#include <time.h>

#include "dataplane.h"

static int64_t monotonic_ns(void)
{
	struct timespec clock;

	clock_gettime(CLOCK_MONOTONIC, &clock);
	return clock.tv_sec * 1000000000LL + clock.tv_nsec;
}

int udpb_read_counters(const struct udpb *u, uint64_t *values, uint32_t count)
{
	if (count > STAT_COUNT)
		return -EINVAL;
	for (uint32_t i = 0; i < count; i++)
		values[i] = stats_read(&u->before, (enum stat_id)i);
	for (uint32_t q = 0; q < UDPB_QUEUES_MAX; q++) {
		for (uint32_t i = 0; i < count; i++)
			values[i] += stats_read(&u->stats[q], (enum stat_id)i);
	}
	return 0;
}

int udpb_add_counters(struct udpb *u, const uint64_t *values, uint32_t count)
{
	if (count > STAT_COUNT)
		return -EINVAL;
	for (uint32_t i = 0; i < count; i++)
		stats_add(&u->before, (enum stat_id)i, values[i]);
	return 0;
}

void udpb_last_error(const struct udpb *u, struct udpb_error *out)
{
	uint64_t last = 0;

	for (uint32_t q = 0; q < UDPB_QUEUES_MAX; q++) {
		uint64_t it = atomic_load_explicit(&u->stats[q].last_error, memory_order_relaxed);

		last = it > last ? it : last; /* the seconds stand foremost */
	}
	*out = (struct udpb_error){
		.error = last & 0xffff,
		.counter = last >> 16 & 0xffff,
		.age_s = monotonic_ns() / 1000000000 - (int64_t)(last >> 32),
	};
}

uint32_t udpb_in_flight(struct udpb *u)
{
	uint32_t total = 0;

	/* The lock keeps a queue from being closed and freed while it is read. */
	pthread_mutex_lock(&u->lock);
	for (uint32_t q = 0; q < UDPB_QUEUES_MAX; q++) {
		if (u->queues[q])
			total += atomic_load_explicit(&u->queues[q]->transmit.in_flight, memory_order_relaxed);
	}
	pthread_mutex_unlock(&u->lock);
	return total;
}

/* How long ago a moment was that a queue may just have noted; -1 for never. */
static int64_t since(int64_t then, int64_t now)
{
	return then == 0 ? -1 : now > then ? now - then : 0;
}

/* Whole seconds until a moment; 0 where it is none, or past. */
static uint32_t seconds_until(int64_t then, int64_t now)
{
	return then > now ? (uint32_t)((then - now) / 1000000000) : 0;
}

/* As many as fit: in 18 hours of silence an hour more tells nothing. */
static uint16_t whole_seconds(int64_t ns)
{
	return ns / 1000000000 > UINT16_MAX ? UINT16_MAX : (uint16_t)(ns / 1000000000);
}

static void describe(const struct peer *peer, int64_t now, struct udpb_peer *out)
{
	int64_t heard = atomic_load_explicit(&peer->heard_ns, memory_order_relaxed);
	int64_t dropped = atomic_load_explicit(&peer->dropped_ns, memory_order_relaxed);
	uint32_t mtu = peer_path_mtu(peer, now);
	/* Read after it: meanwhile it may have been learned anew, or forgotten. */
	int64_t until = atomic_load_explicit(&peer->path_mtu_until_ns, memory_order_relaxed);

	*out = (struct udpb_peer){
		.address_be = peer->address_be,
		.port_be = peer->port_be,
		.unanswered_s = whole_seconds(peer_unanswered_ns(peer, now)),
		.path_mtu_bytes = mtu == UINT32_MAX ? 0 : peer_plausible_mtu(mtu),
		.path_mtu_left_s = mtu == UINT32_MAX ? 0 : seconds_until(until, now),
		.tx_packets = atomic_load_explicit(&peer->tx_packets, memory_order_relaxed),
		.tx_bytes = atomic_load_explicit(&peer->tx_bytes, memory_order_relaxed),
		.rx_packets = atomic_load_explicit(&peer->rx_packets, memory_order_relaxed),
		.rx_bytes = atomic_load_explicit(&peer->rx_bytes, memory_order_relaxed),
		.silent_ns = since(heard, now),
		.tx_dropped = atomic_load_explicit(&peer->tx_dropped, memory_order_relaxed),
		.dropped_ago_ns = since(dropped, now),
	};
}

size_t udpb_read_peers(struct udpb *u, struct udpb_peer *out, size_t capacity)
{
	int64_t now = monotonic_ns();
	const struct table *table;
	size_t count;

	/* The lock keeps a publisher from retiring this table while it is read. */
	pthread_mutex_lock(&u->lock);
	table = atomic_load(&u->table);
	count = peer_map_count(table->peers);
	for (size_t i = 0; i < count && i < capacity; i++)
		describe(peer_map_at(table->peers, (uint32_t)i), now, &out[i]);
	pthread_mutex_unlock(&u->lock);
	return count;
}

/* When something was that another process tells of as so long ago. */
static int64_t before(int64_t now, int64_t ago_ns)
{
	return now > ago_ns ? now - ago_ns : 1;
}

/* When it was last sent to is not told: that begins anew. */
static void restore_counts(struct peer *peer, const struct udpb_peer *row, int64_t now)
{
	peer_sent(peer, row->tx_packets, row->tx_bytes, 0);
	if (row->silent_ns >= 0)
		peer_heard(peer, row->rx_packets, row->rx_bytes, before(now, row->silent_ns));
	if (row->tx_dropped)
		peer_dropped(peer, row->tx_dropped, before(now, row->dropped_ago_ns));
}

static void restore_path(struct peer *peer, const struct udpb_peer *row, int64_t now)
{
	if (row->path_mtu_bytes && peer_path_mtu(peer, now) == UINT32_MAX)
		peer_learn_path_mtu(peer, row->path_mtu_bytes, now + row->path_mtu_left_s * 1000000000LL);
}

static size_t restore(struct udpb *u, const struct udpb_peer *rows, size_t count,
		      void (*one)(struct peer *peer, const struct udpb_peer *row, int64_t now))
{
	const struct table *table;
	int64_t now = monotonic_ns();
	size_t found = 0;

	pthread_mutex_lock(&u->lock);
	table = atomic_load(&u->table);
	for (size_t i = 0; i < count; i++) {
		struct peer *peer = peer_map_find(table->peers, rows[i].address_be);

		if (!peer || peer->port_be != rows[i].port_be)
			continue;
		one(peer, &rows[i], now);
		found++;
	}
	pthread_mutex_unlock(&u->lock);
	return found;
}

size_t udpb_restore_peers(struct udpb *u, const struct udpb_peer *rows, size_t count)
{
	return restore(u, rows, count, restore_counts);
}

size_t udpb_restore_paths(struct udpb *u, const struct udpb_peer *rows, size_t count)
{
	return restore(u, rows, count, restore_path);
}
