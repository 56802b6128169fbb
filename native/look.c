/* look: see look.h. */
#include "look.h"

void look_count(struct look *look, uint64_t packets)
{
	if (packets - look->seen > LOOK_LONE_PACKETS)
		look->lone_waits = 0;
	else if (look->lone_waits < LOOK_LONE_WAITS)
		look->lone_waits++;
	look->seen = packets;
	if (look->rest > 0)
		look->rest--;
}

int64_t look_ns(const struct look *look)
{
	if (look->lone_waits < LOOK_LONE_WAITS || look->rest > 0)
		return 0;
	return look->is_long ? LOOK_LONG_NS : LOOK_SHORT_NS;
}

void look_learn(struct look *look, bool found, int64_t waited_ns)
{
	if (found) {
		look->misses = 0;
		return;
	}
	look->is_long = waited_ns < LOOK_NEAR_NS;
	if (++look->misses < LOOK_MISSES)
		return;
	look->misses = 0;
	look->rest = LOOK_REST / 2 + (int)(waited_ns % LOOK_REST); /* nanoseconds are as good as dice */
}
