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

/* Learns from a yield that took long, at whose end it is `now_ns`. */
static void kept(struct yield *y, int64_t took_ns, int64_t now_ns)
{
	int64_t counted_ns = took_ns < YIELD_MOST_NS ? took_ns : YIELD_MOST_NS;

	y->credits -= YIELD_PRICE;
	y->kept_ns += counted_ns;
	y->again_ns = now_ns + counted_ns;
	if (y->credits > 0)
		return;
	y->again_ns = now_ns + YIELD_REST * y->kept_ns;
	y->credits = YIELD_CREDITS;
	y->kept_ns = 0;
	atomic_store_explicit(&y->crowded_ns, y->again_ns + YIELD_CROWDED_NS, memory_order_relaxed);
}

void yield_core(struct yield *y)
{
	int64_t before = y->clock(), after;

	if (!yield_is_cheap(y, before))
		return;
	(void)y->give_away();
	after = y->clock();
	if (after - before >= YIELD_LONG_NS)
		kept(y, after - before, after);
	else if (after - before >= YIELD_USED_NS && y->credits < YIELD_CREDITS && ++y->credits == YIELD_CREDITS)
		y->kept_ns = 0;
}
