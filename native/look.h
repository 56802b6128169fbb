/* look: how long a queue looks for the next packet before it sleeps.
 *
 * Owns the memory of what the last waits have brought. It must not know packets, queues or the scheduler.
 *
 * Theory of operation. A packet that comes alone is likely to have its answer follow alone: a question and its answer. To
 * sleep between the two costs two wake-ups on each host, and on a virtual machine to wake a core that sleeps takes tens of
 * microseconds: more than the whole way of the packet. There are two states that both last. When everybody looks, the next
 * packet is there within some ten microseconds, and looking is rewarded. When everybody sleeps, it comes after a hundred or
 * two, and a short look finds nothing, for ever. So after a wait that was not long the next look is a longer one, which
 * leads out of the second state. When several in a row are not rewarded, because packets just come at that pace, there
 * is none for many waits, so that no core is kept awake for nothing; then it is tried again. The guest's halt polling of
 * Linux (drivers/cpuidle/governors/haltpoll.c) grows and shrinks for the same reason.
 */
#ifndef UDPB_LOOK_H
#define UDPB_LOOK_H

#include <stdbool.h>
#include <stdint.h>

#define LOOK_LONE_PACKETS 4 /* so few since the last wait came alone */
#define LOOK_LONE_WAITS 4   /* after so many waits of that kind in a row */

#define LOOK_SHORT_NS 20000
#define LOOK_LONG_NS 60000  /* more than a core takes to wake */
#define LOOK_NEAR_NS 250000 /* after a wait of less than this the next look is long */
#define LOOK_MISSES 8       /* so many in a row found nothing ... */
#define LOOK_REST 64        /* ... then about so many waits have none; at both ends others, so that their trials meet */

struct look {
	uint64_t seen;  /* packets at the last wait */
	int lone_waits; /* in a row that brought next to nothing, at most LOOK_LONE_WAITS */
	int misses, rest;
	bool is_long;
};

/* Before a wait: how many packets there have been in all. */
void look_count(struct look *look, uint64_t packets);

/* For how many nanoseconds to look in this wait; 0: not at all. */
int64_t look_ns(const struct look *look);

/* After a wait that was looked in: whether that found something, and how long the whole wait took. */
void look_learn(struct look *look, bool found, int64_t waited_ns);

#endif
