/* yield: gives the core away between batches, as long as it comes back soon.
 *
 * Owns the memory of what a yield has cost. It must not know packets or queues.
 *
 * Theory of operation. When those who share the core are the programs that send and receive what we carry, a yield lets
 * them read it while it is in the cache, and the core comes back when they wait for more: after some ten or a hundred
 * microseconds. A program that computes without end does not wait. It keeps the core until the scheduler takes it away,
 * which is milliseconds, and a yield after every batch is then worth a tenth of the throughput. From outside both look
 * the same, so the queue measures: after a yield that took long it gives none for many times as long, and then tries again.
 * Whoever decides about priority may ask whether there is such a program.
 */
#ifndef UDPB_YIELD_H
#define UDPB_YIELD_H

#include <stdbool.h>
#include <stdint.h>

#define YIELD_LONG_NS 1000000 /* longer than a receiver takes for a batch, shorter than the shortest slice or tick */
#define YIELD_REST 64         /* ... and then none for so many times as long: what trying costs is 1/64 of the time */
#define YIELD_CROWDED_NS 2000000000 /* ... and for so long after that the core counts as crowded */

struct yield {
	int64_t again_ns;           /* no yield before; CLOCK_MONOTONIC */
	_Atomic int64_t crowded_ns; /* until then somebody computes on this core; other threads read it */
	int64_t (*clock)(void);     /* ns */
	int (*give_away)(void);     /* sched_yield(2) */
};

void yield_init(struct yield *yield);

/* Whether the core came back soon, as far as is known. */
bool yield_is_cheap(const struct yield *yield, int64_t now_ns);

/* Gives the core away if that is cheap. */
void yield_core(struct yield *yield);

#endif
