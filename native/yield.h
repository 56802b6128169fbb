/* yield: gives the core away between batches, as long as it comes back soon.
 *
 * Owns the memory of what a yield has cost. It must not know packets or queues.
 *
 * Theory of operation. When those who share the core are the programs that send and receive what we carry, a yield lets
 * them read it while it is in the cache, and the core comes back when they wait for more: after some ten or a hundred
 * microseconds. A program that computes without end does not wait. It keeps the core until the scheduler takes it away,
 * which is milliseconds, and a yield after every batch then costs up to nine tenths of the throughput. From outside both
 * look the same, so the queue measures.
 *
 * One yield does not tell: a program that sends more than can be carried never waits either, until the scheduler moves
 * it to another core. Measured in a flood of datagrams: up to nine yields of milliseconds in a row, within 60 ms, then
 * some hundred that others used and that came back soon. Beside two endless loops: twenty to thirty of milliseconds in
 * half a second, and between two of them none or one that came back soon after it was used.
 *
 * So there are credits. A yield that was used and came back soon earns one, one that took long costs YIELD_PRICE. When
 * they are spent, none is given for YIELD_REST times as long as the long ones took; then all is tried again. (What takes
 * longer than any scheduler keeps somebody waiting is not its doing: the machine was paused or moved, the process
 * stopped. Such a one counts as one of YIELD_MOST_NS, or an hour of it would cost five days.)
 *
 * After each long one none is given for as long as it took: what came meanwhile goes first. The core is ours for half of
 * the time then, whoever else wants it; with a number of batches instead, flannel0's queue grew where three others did.
 * Whoever decides about priority may ask whether there is a program that keeps the core.
 */
#ifndef UDPB_YIELD_H
#define UDPB_YIELD_H

#include <stdbool.h>
#include <stdint.h>

#define YIELD_LONG_NS 1000000 /* longer than a receiver takes for a batch, shorter than the shortest slice or tick */
#define YIELD_USED_NS 20000   /* shorter, and nobody but an interrupt may have had the core */
#define YIELD_MOST_NS 1000000000 /* counts at most: even real time leaves others a part of each second (sched(7)) */
#define YIELD_PRICE 8         /* credits */
#define YIELD_CREDITS 192     /* at most, and to begin with: 24 long ones in a row */
#define YIELD_REST 128        /* what the long ones take is less than 1/100 of the time */
#define YIELD_CROWDED_NS 2000000000 /* for so long after the rest the core counts as crowded still */

struct yield {
	int64_t again_ns;           /* no yield before; CLOCK_MONOTONIC */
	int64_t kept_ns;            /* what the long ones took since all credits were there */
	int credits;                /* 1 to YIELD_CREDITS */
	_Atomic int64_t crowded_ns; /* until then somebody computes on this core; other threads read it */
	int64_t (*clock)(void);     /* ns */
	int (*give_away)(void);     /* sched_yield(2) */
};

void yield_init(struct yield *yield);

/* Whether nobody keeps the core, as far as is known. */
bool yield_is_cheap(const struct yield *yield, int64_t now_ns);

/* Gives the core away if that is cheap. */
void yield_core(struct yield *yield);

#endif
