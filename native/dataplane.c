/* dataplane: the handle behind udpb.h: queues, the published table, counters.
 *
 * Theory of operation. The published table is one atomic pointer. A publisher builds a new table without any lock that a
 * queue knows of, swaps the pointer and *retires* the old one together with each queue's generation at that moment. A
 * retired table is freed by a later call once every queue was between batches then, or has moved on since. The publisher
 * never waits for a queue, a queue never waits for the publisher.
 *
 * `lock` is for the control side alone: publishers, readers of peers, and opening and closing queues.
 */
#include <errno.h>
#include <malloc.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "guard.h"
#include "queue.h"
#include "rights.h"
#include "stats.h"
#include "steer.h"
#include "table.h"
#include "udpb.h"

#define RUN_BUDGET_NS 5000000LL /* a worker that is told to stop in the midst of a load takes so long at most */
#define RUN_LINGER_NS 3600000000000LL /* a worker has nothing else to do */
#define LARGE_TABLE 4096 /* routes */
#define EVEN_THEN UINT64_MAX /* in place of a generation: this queue held nothing when the table was retired */

struct retired {
	struct table *table;
	uint64_t generations[UDPB_QUEUES_MAX];
	struct retired *next;
};

struct udpb {
	struct table *_Atomic table;
	struct queue *queues[UDPB_QUEUES_MAX]; /* changed under the lock; a queue is closed only by who turns it */
	struct stats stats[UDPB_QUEUES_MAX];   /* outlive their queues */
	struct udpb_config config;
	_Atomic int guards[UDPB_QUEUES_MAX]; /* as in guard.h */
	pthread_mutex_t lock;
	struct peer_registry *registry;
	struct retired *retired;
};

static void table_free(struct table *table)
{
	if (!table)
		return;
	fib_free(table->fib);
	peer_map_free(table->peers);
	free(table);
}

/* Turns routes into prefixes with peer indices. `entries` has room for `count`. */
static int fill(struct table *table, const struct udpb_route *routes, size_t count, struct fib_entry *entries)
{
	for (size_t i = 0; i < count; i++) {
		int64_t value = TABLE_LOCAL;

		if (routes[i].peer_address_be) {
			if (!routes[i].peer_port_be)
				return -EINVAL;
			value = peer_map_add(table->peers, routes[i].peer_address_be, routes[i].peer_port_be);
		}
		if (value < 0)
			return (int)value;
		memcpy(entries[i].net, routes[i].net, sizeof(entries[i].net));
		entries[i].value = (uint32_t)value;
		entries[i].version = routes[i].version;
		entries[i].prefix_bits = routes[i].prefix_bits;
	}
	return fib_build(entries, count, &table->fib);
}

static int table_build(struct peer_registry *registry, const struct udpb_route *routes, size_t count, struct table **out)
{
	struct fib_entry *entries = calloc(count ? count : 1, sizeof(*entries));
	struct table *table = calloc(1, sizeof(*table));
	int error = -ENOMEM;

	if (entries && table)
		error = peer_map_new(registry, count < UDPB_PEERS_MAX ? count : UDPB_PEERS_MAX, &table->peers);
	if (!error)
		error = fill(table, routes, count, entries);
	free(entries);
	if (error)
		table_free(table);
	else
		*out = table;
	return error;
}

int udpb_new(const struct udpb_config *config, struct udpb **out)
{
	struct table *empty;
	struct udpb *u;
	int error;

	if (config->source_check > UDPB_SOURCE_OFF)
		return -EINVAL;
	u = aligned_alloc(64, sizeof(*u));
	if (!u)
		return -ENOMEM;
	memset(u, 0, sizeof(*u));
	u->config = *config;
	pthread_mutex_init(&u->lock, NULL);
	error = peer_registry_new(&u->registry);
	if (!error)
		error = table_build(u->registry, NULL, 0, &empty);
	if (error) {
		peer_registry_free(u->registry);
		free(u);
		return error;
	}
	atomic_store(&u->table, empty);
	*out = u;
	return 0;
}

/* Whether no queue can still hold the table. */
static int is_released(const struct udpb *u, const struct retired *r)
{
	for (uint32_t i = 0; i < UDPB_QUEUES_MAX; i++) {
		if (r->generations[i] != EVEN_THEN && u->queues[i] &&
		    atomic_load(&u->queues[i]->generation) == r->generations[i])
			return 0;
	}
	return 1;
}

/* Frees what can be freed; returns how many tables wait. Under the lock. */
static int reclaim(struct udpb *u)
{
	struct retired **link = &u->retired;
	int waiting = 0;

	while (*link) {
		struct retired *r = *link;

		if (is_released(u, r)) {
			*link = r->next;
			table_free(r->table);
			free(r);
		} else {
			link = &r->next;
			waiting++;
		}
	}
	return waiting;
}

void udpb_free(struct udpb *u)
{
	if (!u)
		return;
	for (uint32_t i = 0; i < UDPB_QUEUES_MAX; i++)
		udpb_queue_close(u, i);
	reclaim(u);
	table_free(atomic_load(&u->table));
	peer_registry_free(u->registry);
	pthread_mutex_destroy(&u->lock);
	free(u);
}

int udpb_publish(struct udpb *u, const struct udpb_route *routes, size_t count)
{
	struct retired *r = calloc(1, sizeof(*r));
	struct table *table;
	int error;

	if (!r)
		return -ENOMEM;
	pthread_mutex_lock(&u->lock);
	error = table_build(u->registry, routes, count, &table);
	if (error) {
		free(r);
	} else {
		r->table = atomic_exchange(&u->table, table);
		for (uint32_t i = 0; i < UDPB_QUEUES_MAX; i++) {
			uint64_t generation = u->queues[i] ? atomic_load(&u->queues[i]->generation) : 0;

			r->generations[i] = generation % 2 ? generation : EVEN_THEN;
		}
		r->next = u->retired;
		u->retired = r;
		reclaim(u);
	}
	pthread_mutex_unlock(&u->lock);
#ifdef __GLIBC__
	/* Whoever publishes so many has just made and dropped a multiple of them; glibc would keep that for ever. */
	if (count >= LARGE_TABLE)
		malloc_trim(0);
#endif
	return error;
}

int udpb_reclaim(struct udpb *u)
{
	int waiting;

	pthread_mutex_lock(&u->lock);
	waiting = reclaim(u);
	pthread_mutex_unlock(&u->lock);
	return waiting;
}

int udpb_queue_open(struct udpb *u, uint32_t queue, int tun_fd, int udp_fd)
{
	struct queue_parts parts = {
		.tun_fd = tun_fd,
		.udp_fd = udp_fd,
		.table = &u->table,
		.config = &u->config,
	};
	struct queue *opened;
	int error;

	if (queue >= UDPB_QUEUES_MAX || u->queues[queue])
		return -EINVAL;
	parts.stats = &u->stats[queue];
	error = queue_open(&parts, &opened);
	if (error)
		return error;
	pthread_mutex_lock(&u->lock);
	u->queues[queue] = opened;
	pthread_mutex_unlock(&u->lock);
	return 0;
}

int udpb_queue_add_socket(struct udpb *u, uint32_t queue, int udp_fd)
{
	return queue < UDPB_QUEUES_MAX && u->queues[queue] ? queue_add_socket(u->queues[queue], udp_fd) : -EINVAL;
}

int udpb_steer(int tun_fd)
{
	return steer_attach(tun_fd);
}

void udpb_queue_close(struct udpb *u, uint32_t queue)
{
	struct queue *closed;

	if (queue >= UDPB_QUEUES_MAX)
		return;
	pthread_mutex_lock(&u->lock);
	closed = u->queues[queue];
	u->queues[queue] = NULL;
	pthread_mutex_unlock(&u->lock);
	if (closed)
		queue_close(closed);
}

int udpb_queue_flush(struct udpb *u, uint32_t queue)
{
	return queue < UDPB_QUEUES_MAX && u->queues[queue] ? queue_flush(u->queues[queue]) : -EINVAL;
}

int udpb_queue_fd(const struct udpb *u, uint32_t queue)
{
	return queue < UDPB_QUEUES_MAX && u->queues[queue] ? u->queues[queue]->epoll_fd : -EINVAL;
}

uint32_t udpb_queue_offloads(struct udpb *u, uint32_t queue)
{
	uint32_t offloads = 0;

	pthread_mutex_lock(&u->lock); /* as in udpb_in_flight */
	if (queue < UDPB_QUEUES_MAX && u->queues[queue])
		offloads = queue_offloads(u->queues[queue]);
	pthread_mutex_unlock(&u->lock);
	return offloads;
}

int udpb_queue_crowded(struct udpb *u, uint32_t queue)
{
	int crowded = 0;

	pthread_mutex_lock(&u->lock); /* as in udpb_in_flight */
	if (queue < UDPB_QUEUES_MAX && u->queues[queue])
		crowded = queue_crowded(u->queues[queue]);
	pthread_mutex_unlock(&u->lock);
	return crowded;
}

int udpb_turn(struct udpb *u, uint32_t queue, int64_t budget_ns, int64_t linger_ns, int loop_fd)
{
	if (queue >= UDPB_QUEUES_MAX || !u->queues[queue])
		return -EINVAL;
	return queue_turn(u->queues[queue], budget_ns, linger_ns, loop_fd);
}

/* What a worker does for its life. */
struct life {
	struct queue *queue;
	int stop_fd;
};

static int live(void *about)
{
	static const struct timespec at_once;
	const struct life *life = about;
	struct pollfd stop = { .fd = life->stop_fd, .events = POLLIN };
	int result;

	do {
		/* An idle turn ends when stop_fd is readable, a busy one when its budget is used up. A poll that a signal
		 * interrupted says nothing. */
		result = queue_run(life->queue, RUN_BUDGET_NS, RUN_LINGER_NS, life->stop_fd);
	} while (result != UDPB_TURN_TUN_GONE && ppoll(&stop, 1, &at_once, NULL) < 1);
	return result;
}

int udpb_run(struct udpb *u, uint32_t queue, int stop_fd)
{
	struct life life = { .stop_fd = stop_fd };
	int result;

	if (queue >= UDPB_QUEUES_MAX || !u->queues[queue])
		return -EINVAL;
	life.queue = u->queues[queue];
	queue_take(life.queue);
	result = u->config.guard ? guard_run(live, &life, &u->guards[queue]) : live(&life);
	result = queue_give(life.queue, result);
	return result == UDPB_TURN_IDLE || result == UDPB_TURN_BUDGET ? 0 : result;
}

int udpb_limit_rights(uint64_t capabilities)
{
	return rights_limit(capabilities);
}

int udpb_guard(const struct udpb *u, uint32_t queue)
{
	return queue < UDPB_QUEUES_MAX ? atomic_load(&u->guards[queue]) : -EINVAL;
}

uint64_t udpb_calls_refused(int *last_call)
{
	return guard_refused(last_call);
}

int udpb_run_when(struct udpb *u, uint32_t queue, int go_fd, int stop_fd)
{
	struct pollfd fds[] = { { .fd = go_fd, .events = POLLIN }, { .fd = stop_fd, .events = POLLIN } };

	while (poll(fds, 2, -1) < 0)
		if (errno != EINTR)
			return -errno;
	return fds[1].revents ? 0 : udpb_run(u, queue, stop_fd);
}

int udpb_read_counters(const struct udpb *u, uint64_t *values, uint32_t count)
{
	if (count > STAT_COUNT)
		return -EINVAL;
	memset(values, 0, count * sizeof(*values));
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
		stats_add(&u->stats[0], (enum stat_id)i, values[i]);
	return 0;
}

void udpb_last_error(const struct udpb *u, struct udpb_error *out)
{
	struct timespec clock;
	uint64_t last = 0;

	for (uint32_t q = 0; q < UDPB_QUEUES_MAX; q++) {
		uint64_t it = atomic_load_explicit(&u->stats[q].last_error, memory_order_relaxed);

		last = it > last ? it : last; /* the seconds stand foremost */
	}
	clock_gettime(CLOCK_MONOTONIC, &clock);
	*out = (struct udpb_error){
		.error = last & 0xffff,
		.counter = last >> 16 & 0xffff,
		.age_s = clock.tv_sec - (int64_t)(last >> 32),
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

static void describe(const struct peer *peer, int64_t now, struct udpb_peer *out)
{
	int64_t heard = atomic_load_explicit(&peer->heard_ns, memory_order_relaxed);
	int64_t dropped = atomic_load_explicit(&peer->dropped_ns, memory_order_relaxed);
	uint32_t mtu = peer_path_mtu(peer, now);
	/* Read after it: the end of a path MTU that is believed only moves on, and is never past. */
	int64_t until = atomic_load_explicit(&peer->path_mtu_until_ns, memory_order_relaxed);

	*out = (struct udpb_peer){
		.address_be = peer->address_be,
		.port_be = peer->port_be,
		.path_mtu_bytes = mtu == UINT32_MAX ? 0 : peer_plausible_mtu(mtu),
		.path_mtu_left_s = mtu == UINT32_MAX ? 0 : (uint32_t)((until - now) / 1000000000),
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
	struct timespec clock;
	const struct table *table;
	size_t count;
	int64_t now;

	clock_gettime(CLOCK_MONOTONIC, &clock);
	now = clock.tv_sec * 1000000000LL + clock.tv_nsec;
	/* The lock keeps a publisher from retiring this table while it is read. */
	pthread_mutex_lock(&u->lock);
	table = atomic_load(&u->table);
	count = peer_map_count(table->peers);
	for (size_t i = 0; i < count && i < capacity; i++)
		describe(peer_map_at(table->peers, (uint32_t)i), now, &out[i]);
	pthread_mutex_unlock(&u->lock);
	return count;
}

size_t udpb_restore_peers(struct udpb *u, const struct udpb_peer *rows, size_t count)
{
	const struct table *table;
	struct timespec clock;
	size_t found = 0;
	int64_t now;

	clock_gettime(CLOCK_MONOTONIC, &clock);
	now = clock.tv_sec * 1000000000LL + clock.tv_nsec;
	pthread_mutex_lock(&u->lock);
	table = atomic_load(&u->table);
	for (size_t i = 0; i < count; i++) {
		const struct udpb_peer *row = &rows[i];
		struct peer *peer = peer_map_find(table->peers, row->address_be);

		if (!peer || peer->port_be != row->port_be)
			continue;
		peer_sent(peer, row->tx_packets, row->tx_bytes);
		if (row->silent_ns >= 0)
			peer_heard(peer, row->rx_packets, row->rx_bytes, now > row->silent_ns ? now - row->silent_ns : 1);
		if (row->tx_dropped)
			peer_dropped(peer, row->tx_dropped, now > row->dropped_ago_ns ? now - row->dropped_ago_ns : 1);
		if (row->path_mtu_bytes)
			peer_learn_path_mtu(peer, row->path_mtu_bytes, now + row->path_mtu_left_s * 1000000000LL);
		found++;
	}
	pthread_mutex_unlock(&u->lock);
	return found;
}
