/* dataplane: the handle behind udpb.h: queues and the published table. Who turns a queue: run.c; what is told
 * of them: report.c.
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
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "dataplane.h"
#include "queue.h"
#include "rights.h"
#include "stats.h"
#include "steer.h"
#include "table.h"
#include "udpb.h"

#define LARGE_TABLE 4096 /* routes */
#define EVEN_THEN UINT64_MAX /* in place of a generation: this queue held nothing when the table was retired */

struct retired {
	struct table *table;
	uint64_t generations[UDPB_QUEUES_MAX];
	struct retired *next;
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

int udpb_limit_rights(uint64_t capabilities)
{
	return rights_limit(capabilities);
}
