/* test_dataplane: the handle without a queue, through udpb.h alone: configuration, publications, peers, counters. */
#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "check.h"
#include "udpb.h"

static struct udpb *open_plane(void)
{
	struct udpb_config config = {
		.tun_address_be = htonl(0x0a000001)};
	struct udpb *u = NULL;

	CHECK(udpb_new(&config, &u) == 0);
	return u;
}

/* 10.0.n.0/24 by 192.0.2.n */
static struct udpb_route route(uint8_t n)
{
	return (struct udpb_route){.net = {10, 0, n},
				   .peer_address_be = htonl(0xc0000200 + n),
				   .peer_port_be = htons(8285),
				   .version = 4,
				   .prefix_bits = 24};
}

/* Whether the published peers are exactly 192.0.2.n for these n, in any order. */
static bool peers_are(struct udpb *u, const uint8_t *numbers, size_t count)
{
	struct udpb_peer peers[16];
	size_t found = udpb_read_peers(u, peers, 16);

	for (size_t i = 0; i < count && i < found; i++) {
		bool known = false;

		for (size_t j = 0; j < count; j++)
			known |= peers[i].address_be == htonl(0xc0000200U + numbers[j]);
		if (!known)
			return false;
	}
	return found == count;
}

static void test_new(void)
{
	struct udpb_config config = {0};
	struct udpb *u;

	for (config.source_check = 0; config.source_check < 6; config.source_check++) {
		u = NULL;
		CHECK(udpb_new(&config, &u) == (config.source_check > UDPB_SOURCE_OFF ? -EINVAL : 0));
		CHECK((u != NULL) == (config.source_check <= UDPB_SOURCE_OFF));
		udpb_free(u);
	}
	config.source_check = UINT32_MAX;
	u = NULL;
	CHECK(udpb_new(&config, &u) == -EINVAL && !u);
	udpb_free(NULL);
}

static void test_publish(void)
{
	struct udpb_route routes[] = {route(2), route(3), route(2)};
	struct udpb *u = open_plane();
	struct udpb_peer peer;

	CHECK(peers_are(u, NULL, 0));
	routes[2].net[2] = 4; /* a second subnet of peer 2 */
	CHECK(udpb_publish(u, routes, 3) == 0);
	CHECK(peers_are(u, (const uint8_t[]){2, 3}, 2));
	CHECK(udpb_read_peers(u, NULL, 0) == 2);
	memset(&peer, 0xa5, sizeof(peer));
	CHECK(udpb_read_peers(u, &peer, 1) == 2); /* room for one: told of two */
	CHECK(peer.port_be == htons(8285) && peer.silent_ns == -1);
	CHECK(peer.path_mtu_bytes == 0 && peer.path_mtu_left_s == 0 && peer.unanswered_s == 0);
	CHECK(!peer.tx_packets && !peer.tx_bytes && !peer.rx_packets && !peer.rx_bytes);
	CHECK(udpb_publish(u, routes, 1) == 0);
	CHECK(peers_are(u, (const uint8_t[]){2}, 1));
	CHECK(udpb_publish(u, NULL, 0) == 0); /* nobody is left */
	CHECK(peers_are(u, NULL, 0));
	CHECK(udpb_reclaim(u) == 0); /* without queues no table has to wait */
	udpb_free(u);
}

static void test_local_routes_have_no_peer(void)
{
	struct udpb_route routes[] = {route(2), route(3)};
	struct udpb *u = open_plane();

	routes[0].peer_address_be = 0;
	routes[0].peer_port_be = 0;
	CHECK(udpb_publish(u, routes, 2) == 0);
	CHECK(peers_are(u, (const uint8_t[]){3}, 1));
	routes[0].peer_port_be = htons(1); /* means nothing there */
	CHECK(udpb_publish(u, routes, 2) == 0);
	CHECK(peers_are(u, (const uint8_t[]){3}, 1));
	udpb_free(u);
}

/* A table with anything wrong in it changes nothing, wherever that stands. */
static void test_publish_errors(void)
{
	static const struct {
		int error;
		uint8_t version, prefix_bits;
		uint16_t port;
	} cases[] = {
		{-EINVAL, 4, 33, 8285}, {-EINVAL, 4, 255, 8285}, {-EINVAL, 6, 129, 8285}, {-EINVAL, 5, 24, 8285},
		{-EINVAL, 0, 24, 8285}, {-EINVAL, 4, 24, 0},     {-EEXIST, 4, 24, 8285},
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++)
		for (size_t at = 0; at < 3; at++) {
			struct udpb_route good[] = {route(2), route(3)};
			struct udpb_route bad[] = {route(7), route(8), route(9)};
			struct udpb *u = open_plane();

			CHECK(udpb_publish(u, good, 2) == 0);
			bad[at].version = cases[i].version;
			bad[at].prefix_bits = cases[i].prefix_bits;
			bad[at].peer_port_be = htons(cases[i].port);
			if (cases[i].error == -EEXIST)
				memcpy(bad[at].net, bad[(at + 1) % 3].net, sizeof(bad[at].net));
			CHECK(udpb_publish(u, bad, 3) == cases[i].error);
			CHECK(peers_are(u, (const uint8_t[]){2, 3}, 2));
			CHECK(udpb_publish(u, good, 1) == 0); /* and a good one is taken afterwards */
			CHECK(peers_are(u, (const uint8_t[]){2}, 1));
			udpb_free(u);
		}
}

/* One prefix for two peers is as wrong as for one; the same bits at two lengths are not. */
static void test_overlaps(void)
{
	struct udpb_route routes[] = {route(2), route(3)};
	struct udpb *u = open_plane();

	routes[1].net[2] = 2;
	CHECK(udpb_publish(u, routes, 2) == -EEXIST);
	routes[1].net[3] = 77; /* past the prefix */
	CHECK(udpb_publish(u, routes, 2) == -EEXIST);
	routes[1].prefix_bits = 25;
	CHECK(udpb_publish(u, routes, 2) == 0);
	CHECK(peers_are(u, (const uint8_t[]){2, 3}, 2));
	udpb_free(u);
}

static void test_many_peers(void)
{
	size_t count = 65536;
	struct udpb_route *routes = calloc(count, sizeof(*routes));
	struct udpb_peer *peers = calloc(count, sizeof(*peers));
	struct udpb *u = open_plane();

	for (uint32_t i = 0; i < count; i++)
		routes[i] = (struct udpb_route){.net = {10, (uint8_t)(i >> 8), (uint8_t)i},
						.peer_address_be = htonl(0xac100000 + i),
						.peer_port_be = htons(8285),
						.version = 4,
						.prefix_bits = 24};
	CHECK(udpb_publish(u, routes, count) == 0);
	CHECK(udpb_read_peers(u, peers, count) == count);
	for (uint32_t i = 0; i < count; i++)
		CHECK(peers[i].address_be == htonl(0xac100000 + i)); /* in the order of the routes */
	CHECK(udpb_publish(u, routes, 3) == 0);
	CHECK(udpb_read_peers(u, NULL, 0) == 3);
	udpb_free(u);
	free(routes);
	free(peers);
}

static void test_counters_described(void)
{
	uint32_t count = udpb_counters(), kinds[2][4] = {{0}};
	struct udpb_counter one, other;

	for (uint32_t i = 0; i < count; i++) {
		memset(&one, 0, sizeof(one));
		if (!CHECK(udpb_counter_info(i, &one) == 0 && one.name && one.meaning && one.cure))
			continue;
		if (!CHECK(one.direction <= UDPB_RX && one.kind <= UDPB_NOTE))
			continue;
		kinds[one.direction][one.kind]++;
		CHECK(!strncmp(one.name, one.direction == UDPB_TX ? "tx_" : "rx_", 3));
		CHECK(!strncmp(one.name + 3, "drop_", 5) == (one.kind == UDPB_DROPPED));
		for (const char *c = one.name; *c; c++) /* fit for a metric's name */
			CHECK(islower((unsigned char)*c) || *c == '_');
		CHECK(strlen(one.meaning) > 0);
		if (one.kind == UDPB_DROPPED)
			CHECK(strlen(one.cure) > 0);
		if (one.kind == UDPB_RECEIVED || one.kind == UDPB_DELIVERED)
			CHECK(strlen(one.cure) == 0);
		for (uint32_t j = 0; j < i; j++)
			CHECK(udpb_counter_info(j, &other) == 0 && strcmp(one.name, other.name) != 0);
	}
	for (int direction = 0; direction < 2; direction++)
		CHECK(kinds[direction][UDPB_RECEIVED] == 1 && kinds[direction][UDPB_DELIVERED] == 1);
	CHECK(udpb_counter_info(count, &one) == -EINVAL);
	CHECK(udpb_counter_info(UINT32_MAX, &one) == -EINVAL);
}

static void test_counters_start_at_zero(void)
{
	uint32_t count = udpb_counters();
	uint64_t *values = malloc(count * sizeof(*values)); /* exactly: the sanitizer sees one too many */
	struct udpb *u = open_plane();
	struct udpb_error last;

	memset(values, 0xa5, count * sizeof(*values));
	CHECK(udpb_read_counters(u, values, count) == 0);
	for (uint32_t i = 0; i < count; i++)
		CHECK(values[i] == 0);
	values[1] = 7;
	CHECK(udpb_read_counters(u, values, 1) == 0 && values[1] == 7);
	CHECK(udpb_read_counters(u, values, count + 1) == -EINVAL);
	udpb_last_error(u, &last);
	CHECK(udpb_in_flight(u) == 0 && last.error == 0);
	udpb_free(u);
	free(values);
}

static void test_queue_numbers(void)
{
	static const uint32_t numbers[] = {0, 1, UDPB_QUEUES_MAX - 1, UDPB_QUEUES_MAX, UINT32_MAX};
	struct udpb *u = open_plane();

	for (size_t i = 0; i < sizeof(numbers) / sizeof(*numbers); i++) {
		CHECK(udpb_queue_fd(u, numbers[i]) == -EINVAL);
		CHECK(udpb_queue_offloads(u, numbers[i]) == 0);
		CHECK(udpb_turn(u, numbers[i], 1000000, 0, -1) == -EINVAL);
		CHECK(udpb_run(u, numbers[i], -1) == -EINVAL);
		CHECK(udpb_queue_pass_on(u, numbers[i], -1) == -EINVAL);
		udpb_queue_close(u, numbers[i]); /* nothing to close */
	}
	CHECK(udpb_queue_open(u, UDPB_QUEUES_MAX, 0, 0) == -EINVAL);
	CHECK(udpb_queue_open(u, 0, -1, -1) == -EBADF);
	CHECK(udpb_queue_fd(u, 0) == -EINVAL);
	udpb_free(u);
}

/* What one process has counted goes on in the next. */
static void test_counters_and_peers_are_handed_over(void)
{
	struct udpb_route routes[] = {route(2), route(3)};
	struct udpb_peer rows[] = {
		{.address_be = htonl(0xc0000202), .port_be = htons(8285), .path_mtu_bytes = 1400, .path_mtu_left_s = 100,
		 .tx_packets = 1, .tx_bytes = 2, .rx_packets = 3, .rx_bytes = 4, .silent_ns = 5000000000LL,
		 .unanswered_s = 60},
		{.address_be = htonl(0xc0000203), .port_be = htons(1), .tx_packets = 9, .silent_ns = -1},
		{.address_be = htonl(0xc0000204), .port_be = htons(8285), .tx_packets = 9, .silent_ns = -1},
	};
	uint32_t count = udpb_counters();
	uint64_t *values = calloc(count + 1, sizeof(*values));
	struct udpb *u = open_plane();
	struct udpb_peer got[2];

	for (uint32_t i = 0; i < count; i++)
		values[i] = i + 1;
	CHECK(udpb_add_counters(u, values, count + 1) == -EINVAL);
	CHECK(udpb_add_counters(u, values, count) == 0 && udpb_add_counters(u, values, 2) == 0);
	CHECK(udpb_read_counters(u, values, count) == 0);
	for (uint32_t i = 0; i < count; i++)
		CHECK(values[i] == (i < 2 ? 2 * (i + 1) : i + 1));
	CHECK(udpb_publish(u, routes, 2) == 0);
	CHECK(udpb_restore_peers(u, rows, 3) == 1); /* of another port, and no peer any more */
	CHECK(udpb_restore_paths(u, rows, 3) == 1);
	rows[0].path_mtu_bytes = 1300;
	CHECK(udpb_restore_paths(u, rows, 3) == 1); /* what is known already is not older than that */
	CHECK(udpb_read_peers(u, got, 2) == 2);
	for (int i = 0; i < 2; i++) {
		bool known = got[i].address_be == rows[0].address_be;

		CHECK(got[i].path_mtu_bytes == (known ? 1400 : 0) && got[i].tx_packets == known);
		CHECK(got[i].unanswered_s == 0); /* when it was last sent to is not known */
		CHECK(got[i].path_mtu_left_s == (known ? 100 : 0) || (known && got[i].path_mtu_left_s == 99));
		CHECK(got[i].tx_bytes == 2 * known && got[i].rx_packets == 3 * known && got[i].rx_bytes == 4 * known);
		CHECK(known ? got[i].silent_ns >= 5000000000LL && got[i].silent_ns < 60000000000LL : got[i].silent_ns == -1);
	}
	udpb_free(u);
	free(values);
}

int main(void)
{
	test_new();
	test_publish();
	test_local_routes_have_no_peer();
	test_publish_errors();
	test_overlaps();
	test_many_peers();
	test_counters_described();
	test_counters_start_at_zero();
	test_queue_numbers();
	test_counters_and_peers_are_handed_over();
	return check_done();
}
