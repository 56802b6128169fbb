/* lanes: see lanes.h.
 *
 * Theory of operation. How full a socket is can be asked (SIOCOUTQ), not for whom. But who has sent no more than Q bytes
 * since the shared sockets were next to empty holds no more than Q of them. So bytes are counted per peer in *epochs*.
 * When a peer reaches the quota the sockets are looked at: next to empty begins a new epoch for all, and this is how it
 * always ends where nobody is slow, one question in a quota's bytes. Otherwise the peer gets a lane, whether the fault is
 * his or not: a lane is no punishment, only an account of his own. It is given back as soon as it is next to empty. What he
 * leaves behind in the shared sockets may stay there for long, and counts as nothing when they are looked at again.
 *
 * When all lanes are taken by peers that are slow, the next ones fill the shared sockets. These are *tight* once they are
 * half full: the other half is for who gets little, a quarter of a quota in LANES_LITTLE_NS, and others are *held back*.
 *
 * Order. A lane sends from the same address and ports, so qdiscs, cards and switches see the flow it was; all of a queue's
 * sockets are written by one thread, and a socket keeps no datagrams, only the sum. A change of lane therefore overtakes
 * nothing.
 */
#include "lanes.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

void lanes_init(struct lanes *l)
{
	memset(l, 0, sizeof(*l));
	l->epoch = 1; /* no share belongs to it yet */
}

int lanes_add_common(struct lanes *l, struct udp_io *udp)
{
	uint32_t quota = udp->buffer_bytes / 64;

	if (l->ports == LANES_PORTS_MAX)
		return -ENOSPC;
	if (quota > LANES_QUOTA_BYTES)
		quota = LANES_QUOTA_BYTES;
	if (quota < LANES_QUOTA_LEAST_BYTES)
		quota = LANES_QUOTA_LEAST_BYTES;
	l->quota_bytes = quota;
	l->common[l->ports++] = udp;
	return 0;
}

static void lane_close(struct lane *lane)
{
	while (lane->open > 0)
		close(lane->udp[--lane->open].fd);
}

void lanes_release(struct lanes *l)
{
	for (uint32_t i = 0; i < LANES_MAX; i++)
		lane_close(&l->lanes[i]);
}

static bool is_of(const struct lanes_share *share, const struct peer *peer)
{
	return share->address_be == peer->address_be && share->port_be == peer->port_be;
}

/* Whether `one` is the better place for a newcomer: nobody's lane, and the least is lost by forgetting him. */
static bool is_less(const struct lanes *l, const struct lanes_share *one, const struct lanes_share *other)
{
	if (one->lane || other->lane)
		return !one->lane;
	return other->epoch == l->epoch && (one->epoch != l->epoch || one->charged_bytes < other->charged_bytes);
}

struct lanes_share *lanes_share(struct lanes *l, const struct peer *peer)
{
	/* Addresses of one underlay differ in their low bits, which stand last in memory; as in peer.c. */
	uint32_t place = (uint32_t)((peer->address_be * 0x9e3779b97f4a7c15ULL) >> 32);
	struct lanes_share *least = &l->shares[place % LANES_SHARES];

	for (uint32_t i = 0; i < LANES_PROBE; i++) {
		struct lanes_share *share = &l->shares[(place + i) % LANES_SHARES];

		if (is_of(share, peer)) {
			least = share;
			break;
		}
		if (is_less(l, share, least))
			least = share;
	}
	if (!is_of(least, peer) && least->lane)
		least = &l->others;
	else if (!is_of(least, peer))
		*least = (struct lanes_share){ .address_be = peer->address_be, .port_be = peer->port_be };
	if (least->epoch != l->epoch && !least->lane) {
		least->charged_bytes = 0;
		least->epoch = l->epoch;
	}
	return least;
}

/* What the fullest of a lane's sockets holds; of those that all share with `lane` NULL. */
static uint32_t level(const struct lanes *l, const struct lane *lane)
{
	uint32_t most = 0;

	for (uint32_t i = 0; i < l->ports; i++) {
		uint32_t bytes = udp_io_queued(lane ? &lane->udp[i] : l->common[i]);

		most = bytes > most ? bytes : most;
	}
	return most;
}

static bool is_drained(const struct lanes *l, const struct lane *lane)
{
	uint32_t quarter = lane->udp[0].buffer_bytes / 4;

	return level(l, lane) <= (quarter < l->quota_bytes ? quarter : l->quota_bytes);
}

static void give_back(struct lanes *l, struct lane *lane)
{
	/* A qdisc keeps the order of a flow: what he sent before he had the lane is gone as well. */
	l->left_bytes -= lane->left_bytes < l->left_bytes ? lane->left_bytes : l->left_bytes;
	lane->share->lane = 0;
	lane->share->charged_bytes = 0;
	lane->share->epoch = l->epoch;
	lane->share = NULL;
}

/* Opens what is missing of a lane's sockets. Returns whether it is complete. */
static bool lane_open(const struct lanes *l, struct lane *lane)
{
	while (lane->open < l->ports) {
		const struct udp_io *model = l->common[lane->open];

		if (model->beside(&lane->udp[lane->open], model, LANES_BUFFER_BYTES / l->ports) < 0)
			return false;
		lane->open++;
	}
	return true;
}

/* A lane for another peer: one that nobody has, or whose peer needs it no more. NULL: none. */
static struct lane *free_lane(struct lanes *l)
{
	for (uint32_t i = 0; i < LANES_MAX; i++)
		if (!l->lanes[i].share && lane_open(l, &l->lanes[i]))
			return &l->lanes[i];
	for (uint32_t i = 0; i < LANES_MAX; i++) {
		struct lane *lane = &l->lanes[l->next_lane++ % LANES_MAX]; /* in turn: who has just got one keeps it longest */

		if (lane->share && is_drained(l, lane)) {
			give_back(l, lane);
			return lane;
		}
	}
	return NULL;
}

/* A peer without a lane has used up its quota. */
static void at_quota(struct lanes *l, struct lanes_share *share)
{
	uint32_t bytes = level(l, NULL), quota_used = share->charged_bytes;
	struct lane *lane;

	l->tight = bytes > l->common[0]->buffer_bytes / 2;
	l->left_bytes = bytes < l->left_bytes ? bytes : l->left_bytes;
	share->charged_bytes = 0;
	if (bytes <= l->left_bytes + l->quota_bytes) {
		share->epoch = ++l->epoch;
		return;
	}
	lane = share == &l->others ? NULL : free_lane(l);
	if (lane) {
		lane->left_bytes = quota_used;
		l->left_bytes += quota_used;
		lane->share = share;
		share->lane = (uint8_t)(lane - l->lanes + 1);
	} else {
		share->charged_bytes = l->quota_bytes / 4 * 3; /* and asks again after another quarter */
	}
}

/* Notes that a peer is sent something, dropped or not: does he get little, all in all? */
static void offer(const struct lanes *l, struct lanes_share *share, uint32_t bytes, int64_t now_ns)
{
	if (now_ns - share->since_ns >= LANES_LITTLE_NS) {
		share->gets_little = share->since_ns > 0 && share->offered_bytes <= l->quota_bytes / 4;
		share->offered_bytes = 0;
		share->since_ns = now_ns;
	}
	share->offered_bytes += bytes + LANES_MESSAGE_BYTES;
}

/* Whether what is left of the shared sockets is kept for others. */
static bool is_held_back(const struct lanes *l, const struct lanes_share *share)
{
	return l->tight && !share->lane && !share->gets_little && share->charged_bytes > l->quota_bytes / 4;
}

struct udp_io *lanes_socket(struct lanes *l, struct lanes_share *share, uint32_t port, uint32_t bytes, int64_t now_ns)
{
	if (bytes > 0)
		offer(l, share, bytes, now_ns);
	if (is_held_back(l, share) && now_ns - l->tried_ns >= LANES_TRY_NS) {
		l->tried_ns = now_ns;
		at_quota(l, share);
	}
	if (is_held_back(l, share))
		return NULL;
	return share->lane ? &l->lanes[share->lane - 1].udp[port] : l->common[port];
}

void lanes_charge(struct lanes *l, struct lanes_share *share, uint32_t messages, uint32_t bytes)
{
	share->charged_bytes += bytes + messages * LANES_MESSAGE_BYTES;
	if (share->charged_bytes < l->quota_bytes)
		return;
	if (!share->lane) {
		at_quota(l, share);
		return;
	}
	share->charged_bytes = 0;
	if (is_drained(l, &l->lanes[share->lane - 1]))
		give_back(l, &l->lanes[share->lane - 1]);
}
