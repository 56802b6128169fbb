/* yield: see yield.h. */
#include "yield.h"

#include <sched.h>
#include <stdatomic.h>
#include <time.h>

static int64_t monotonic_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * 1000000000LL + now.tv_nsec;
}

void yield_init(struct yield *y)
{
	*y = (struct yield){ .credits = YIELD_CREDITS, .clock = monotonic_ns, .give_away = sched_yield };
}

bool yield_is_cheap(const struct yield *y, int64_t now_ns)
{
	return now_ns >= y->again_ns;
}

/* Learns from a yield that took long. Returns for how long none is to be given. */
static int64_t kept(struct yield *y, int64_t took_ns, int64_t now_ns)
{
	int64_t rest_ns;

	y->credits -= YIELD_PRICE;
	y->kept_ns += took_ns;
	if (y->credits > 0)
		return YIELD_CATCH_UP * took_ns;
	rest_ns = YIELD_REST * y->kept_ns;
	y->credits = YIELD_CREDITS;
	y->kept_ns = 0;
	atomic_store_explicit(&y->crowded_ns, now_ns + rest_ns + YIELD_CROWDED_NS, memory_order_relaxed);
	return rest_ns;
}

void yield_core(struct yield *y)
{
	int64_t before = y->clock(), after, took;

	if (!yield_is_cheap(y, before))
		return;
	(void)y->give_away();
	after = y->clock();
	took = after - before;
	if (took >= YIELD_LONG_NS)
		y->again_ns = after + kept(y, took, after);
	else if (took >= YIELD_USED_NS && y->credits < YIELD_CREDITS && ++y->credits == YIELD_CREDITS)
		y->kept_ns = 0;
}
