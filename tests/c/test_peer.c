/* test_peer: peers that outlive the tables they stand in.
 *
 * The address sanitizer tells whether a peer is freed with its last map: sooner, and the test touches freed memory;
 * never, and it leaks.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>

#include "check.h"
#include "peer.h"

#define PORT htons(8285)
#define MANY 70000

static uint32_t address(uint32_t i)
{
	return htonl(0x0a000000 + i);
}

static struct peer_map *new_map(struct peer_registry *registry, size_t capacity)
{
	struct peer_map *map = NULL;

	CHECK(peer_map_new(registry, capacity, &map) == 0);
	CHECK(peer_map_count(map) == 0);
	return map;
}

static void test_empty(void)
{
	struct peer_registry *registry;
	struct peer_map *map;

	CHECK(peer_registry_new(&registry) == 0);
	map = new_map(registry, 0);
	CHECK(peer_map_find(map, address(1)) == NULL);
	CHECK(peer_map_find(map, 0) == NULL);
	CHECK(peer_map_add(map, address(1), PORT) == -E2BIG);
	peer_map_free(map);
	peer_map_free(NULL);
	peer_registry_free(registry);
	peer_registry_free(NULL);
}

static void test_add_and_find(void)
{
	struct peer_registry *registry;
	struct peer_map *map;
	struct peer *second;

	CHECK(peer_registry_new(&registry) == 0);
	map = new_map(registry, 3);
	CHECK(peer_map_add(map, address(1), PORT) == 0);
	CHECK(peer_map_add(map, address(2), PORT) == 1);
	CHECK(peer_map_add(map, address(1), PORT) == 0); /* it is there already */
	CHECK(peer_map_count(map) == 2);
	second = peer_map_find(map, address(2));
	CHECK(second && second == peer_map_at(map, 1));
	CHECK(second->address_be == address(2) && second->port_be == PORT);
	CHECK(peer_map_find(map, address(3)) == NULL);

	/* Full: no more is let in, but what is there is still found. */
	CHECK(peer_map_add(map, address(3), PORT) == 2);
	CHECK(peer_map_add(map, address(4), PORT) == -E2BIG);
	CHECK(peer_map_add(map, address(2), PORT) == 1);
	CHECK(peer_map_count(map) == 3);
	CHECK(peer_map_find(map, address(4)) == NULL);
	peer_map_free(map);
	peer_registry_free(registry);
}

/* One public address, two ports: two peers, either of which the address finds. */
static void test_two_ports(void)
{
	struct peer_registry *registry;
	struct peer_map *map, *next;
	struct peer *found;

	CHECK(peer_registry_new(&registry) == 0);
	map = new_map(registry, 4);
	CHECK(peer_map_add(map, address(1), htons(1)) == 0);
	CHECK(peer_map_add(map, address(1), htons(2)) == 1);
	CHECK(peer_map_add(map, address(1), htons(1)) == 0 && peer_map_add(map, address(1), htons(2)) == 1);
	CHECK(peer_map_at(map, 0) != peer_map_at(map, 1));
	found = peer_map_find(map, address(1));
	CHECK(found == peer_map_at(map, 0) || found == peer_map_at(map, 1));
	peer_sent(peer_map_at(map, 1), 7, 700, 50);

	next = new_map(registry, 1); /* keeps the second alone */
	CHECK(peer_map_add(next, address(1), htons(2)) == 0);
	peer_map_free(map);
	CHECK(peer_map_find(next, address(1))->port_be == htons(2));
	CHECK(atomic_load(&peer_map_find(next, address(1))->tx_packets) == 7);
	peer_map_free(next);
	peer_registry_free(registry);
}

/* Table after table: the peers that stay keep all they know, the others are gone for good. */
static void test_survive(void)
{
	struct peer_registry *registry;
	struct peer_map *map, *next;
	struct peer *kept;

	CHECK(peer_registry_new(&registry) == 0);
	map = new_map(registry, 2);
	peer_map_add(map, address(1), PORT);
	peer_map_add(map, address(2), PORT);
	kept = peer_map_find(map, address(1));
	peer_sent(kept, 3, 300, 50);
	peer_heard(kept, 4, 400, 1234);
	peer_learn_path_mtu(kept, 1400, 5000);
	peer_sent(peer_map_find(map, address(2)), 1, 1, 50);

	for (uint32_t i = 0; i < 100; i++) {
		next = new_map(registry, 1 + i % 3);
		if (i % 3 > 0) /* where it stands changes */
			peer_map_add(next, address(50 + i), PORT);
		peer_map_add(next, address(1), PORT);
		peer_map_free(map);
		map = next;
	}
	CHECK(peer_map_find(map, address(1)) == kept);
	CHECK(atomic_load(&kept->tx_packets) == 3 && atomic_load(&kept->tx_bytes) == 300);
	CHECK(atomic_load(&kept->rx_packets) == 4 && atomic_load(&kept->rx_bytes) == 400);
	CHECK(atomic_load(&kept->heard_ns) == 1234 && peer_path_mtu(kept, 4999) == 1400);

	next = new_map(registry, 2); /* a peer that comes back starts from nothing */
	peer_map_add(next, address(2), PORT);
	CHECK(atomic_load(&peer_map_find(next, address(2))->tx_packets) == 0);
	peer_map_free(map); /* and the first is gone with this */
	peer_map_add(next, address(1), PORT);
	CHECK(atomic_load(&peer_map_find(next, address(1))->tx_packets) == 0);
	CHECK(peer_path_mtu(peer_map_find(next, address(1)), 0) == UINT32_MAX);
	peer_map_free(next);
	peer_registry_free(registry);
}

/* Several old tables wait to be freed at once, and go in any order. */
static void test_freed_in_any_order(void)
{
	static const uint32_t orders[][3] = {{0, 1, 2}, {0, 2, 1}, {1, 0, 2}, {1, 2, 0}, {2, 0, 1}, {2, 1, 0}};

	for (size_t i = 0; i < 6; i++) {
		struct peer_registry *registry;
		struct peer_map *maps[3];

		CHECK(peer_registry_new(&registry) == 0);
		for (uint32_t j = 0; j < 3; j++) {
			maps[j] = new_map(registry, 4);
			peer_map_add(maps[j], address(1), PORT);
			peer_map_add(maps[j], address(1), PORT); /* twice in one map is once */
			peer_map_add(maps[j], address(10 + j), PORT);
			peer_sent(peer_map_at(maps[j], 0), 1, 1, 50);
		}
		for (uint32_t j = 0; j < 3; j++) {
			CHECK(atomic_load(&peer_map_at(maps[orders[i][j]], 0)->tx_packets) == 3);
			peer_map_free(maps[orders[i][j]]);
		}
		peer_registry_free(registry);
	}
}

static void test_many(void)
{
	struct peer_registry *registry;
	struct peer_map *map, *next;

	CHECK(peer_registry_new(&registry) == 0);
	map = new_map(registry, MANY);
	for (uint32_t i = 0; i < MANY; i++)
		CHECK(peer_map_add(map, address(i), PORT) == i);
	CHECK(peer_map_add(map, address(MANY), PORT) == -E2BIG);
	for (uint32_t i = 0; i < MANY; i++) {
		struct peer *peer = peer_map_find(map, address(i));

		CHECK(peer == peer_map_at(map, i) && peer->address_be == address(i));
		peer_sent(peer, i + 1, 0, 50);
	}
	for (uint32_t i = 0; i < MANY; i++)
		CHECK(peer_map_find(map, address(MANY + i)) == NULL);

	next = new_map(registry, MANY); /* every second stays, in another order */
	for (uint32_t i = MANY; i > 0; i -= 2)
		peer_map_add(next, address(i - 1), PORT);
	peer_map_free(map);
	CHECK(peer_map_count(next) == MANY / 2);
	for (uint32_t i = 0; i < MANY; i++) {
		struct peer *peer = peer_map_find(next, address(i));

		CHECK((peer != NULL) == i % 2);
		CHECK(!peer || atomic_load(&peer->tx_packets) == i + 1);
	}
	peer_map_free(next);
	peer_registry_free(registry);
}

static void test_path_mtu(void)
{
	struct peer peer = {0};

	CHECK(peer_path_mtu(&peer, 0) == UINT32_MAX);
	peer_learn_path_mtu(&peer, 1400, 1000);
	CHECK(peer_path_mtu(&peer, 0) == 1400 && peer_path_mtu(&peer, 999) == 1400);
	CHECK(peer_path_mtu(&peer, 1000) == UINT32_MAX && peer_path_mtu(&peer, INT64_MAX) == UINT32_MAX);
	peer_learn_path_mtu(&peer, 1300, 3000); /* again, and longer */
	CHECK(peer_path_mtu(&peer, 1000) == 1300 && peer_path_mtu(&peer, 3000) == UINT32_MAX);
	peer_forget_path_mtu(&peer);
	CHECK(peer_path_mtu(&peer, 0) == UINT32_MAX);
}

#define EPOCHS 300000

static struct peer shared;
static _Atomic int64_t epoch; /* of what is believed until its end; the next one's clock is past it */

static void *learn_again_and_again(void *unused)
{
	for (int64_t i = 1; i <= EPOCHS; i++) {
		peer_learn_path_mtu(&shared, (uint32_t)i, 2 * i + 1);
		atomic_store(&epoch, i);
	}
	return unused;
}

/* While one queue learns a path's MTU anew, no other believes the one that has expired. */
static void test_path_mtu_learned_while_read(void)
{
	pthread_t learner;
	uint32_t stale = 0;
	int64_t i;

	CHECK(pthread_create(&learner, NULL, learn_again_and_again, NULL) == 0);
	do {
		i = atomic_load(&epoch);
		stale += peer_path_mtu(&shared, 2 * (i + 1)) <= i; /* the next epoch: its MTU, a later one's or none */
	} while (i < EPOCHS);
	CHECK(pthread_join(learner, NULL) == 0);
	CHECK(stale == 0);
}

static struct peer fickle;

static void *forget_again_and_again(void *unused)
{
	for (uint32_t i = 0; i < EPOCHS; i++) {
		peer_learn_path_mtu(&fickle, 1400, INT64_MAX);
		peer_forget_path_mtu(&fickle);
	}
	atomic_store(&epoch, 0);
	return unused;
}

/* While one queue forgets a path's MTU, another believes the old one or none, and nothing else. */
static void test_path_mtu_forgotten_while_read(void)
{
	uint32_t wrong = 0;
	pthread_t forgetful;

	atomic_store(&epoch, 1);
	CHECK(pthread_create(&forgetful, NULL, forget_again_and_again, NULL) == 0);
	while (atomic_load(&epoch)) {
		uint32_t mtu = peer_path_mtu(&fickle, 0);

		wrong += mtu != 1400 && mtu != UINT32_MAX;
	}
	CHECK(pthread_join(forgetful, NULL) == 0);
	CHECK(wrong == 0);
}

static void test_counts(void)
{
	struct peer peer = {0};

	peer_sent(&peer, 1, 1000, 50);
	peer_sent(&peer, 2, 1UL << 40, 50);
	peer_heard(&peer, 3, 30, 100);
	peer_heard(&peer, 1, 10, 200);
	CHECK(atomic_load(&peer.tx_packets) == 3 && atomic_load(&peer.tx_bytes) == (1UL << 40) + 1000);
	CHECK(atomic_load(&peer.rx_packets) == 4 && atomic_load(&peer.rx_bytes) == 40);
	CHECK(atomic_load(&peer.heard_ns) == 200);
}

/* A peer is asked for as long as packets go to it without a long pause and none comes. */
static void test_unanswered(void)
{
	const int64_t second = 1000000000, start = 1000 * second;
	struct peer peer = {0};

	CHECK(peer_unanswered_ns(&peer, start) == 0);
	for (int64_t at = 0; at <= 18; at += 9) {
		peer_sent(&peer, 1, 10, start + at * second);
		CHECK(peer_unanswered_ns(&peer, start + at * second) == at * second);
	}
	CHECK(peer_unanswered_ns(&peer, start + 27 * second) == 18 * second);
	CHECK(peer_unanswered_ns(&peer, start + 28 * second) == 0); /* nobody waits for it any more */
	peer_sent(&peer, 1, 10, start + 28 * second);
	peer_sent(&peer, 1, 10, start + 33 * second);
	CHECK(peer_unanswered_ns(&peer, start + 33 * second) == 5 * second);
	peer_heard(&peer, 1, 10, start + 34 * second);
	CHECK(peer_unanswered_ns(&peer, start + 34 * second) == 0);
	peer_sent(&peer, 1, 10, start + 35 * second);
	peer_sent(&peer, 1, 10, start + 36 * second);
	CHECK(peer_unanswered_ns(&peer, start + 36 * second) == second);
}

int main(void)
{
	test_empty();
	test_add_and_find();
	test_two_ports();
	test_survive();
	test_freed_in_any_order();
	test_many();
	test_path_mtu();
	test_path_mtu_learned_while_read();
	test_path_mtu_forgotten_while_read();
	test_counts();
	test_unanswered();
	return check_done();
}
