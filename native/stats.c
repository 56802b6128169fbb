/* stats: the list of counters as data, for whoever shows them. */
#include "stats.h"

#include <errno.h>

static const struct udpb_counter counters[STAT_COUNT] = {
#define UDPB_STAT_ROW(name_, direction_, kind_, meaning_, cure_)                                                       \
	[STAT_##name_] = {                                                                                             \
		.name = #name_,                                                                                        \
		.meaning = meaning_,                                                                                   \
		.cure = cure_,                                                                                         \
		.direction = UDPB_##direction_,                                                                        \
		.kind = UDPB_##kind_,                                                                                  \
	},
	UDPB_STATS(UDPB_STAT_ROW)
#undef UDPB_STAT_ROW
};

uint32_t udpb_counters(void)
{
	return STAT_COUNT;
}

int udpb_counter_info(uint32_t counter, struct udpb_counter *out)
{
	if (counter >= STAT_COUNT)
		return -EINVAL;
	*out = counters[counter];
	return 0;
}
