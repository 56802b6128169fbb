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
	*y = (struct yield){ .clock = monotonic_ns, .give_away = sched_yield };
}

bool yield_is_cheap(const struct yield *y, int64_t now_ns)
{
	return now_ns >= y->again_ns;
}

void yield_core(struct yield *y)
{
	int64_t before = y->clock(), after;

	if (!yield_is_cheap(y, before))
		return;
	(void)y->give_away();
	after = y->clock();
	if (after - before < YIELD_LONG_NS)
		return;
	y->again_ns = after + YIELD_REST * (after - before);
	atomic_store_explicit(&y->crowded_ns, y->again_ns + YIELD_CROWDED_NS, memory_order_relaxed);
}
