/* timing: how long a piece of code takes at its best.
 *
 * Owns the clock and the rule: a round lasts long enough for the clock, many rounds are made, and the quickest counts,
 * because everything that disturbs a round makes it longer. Must not know what is timed.
 */
#ifndef BENCH_TIMING_H
#define BENCH_TIMING_H

#include <stdint.h>
#include <time.h>

#define TIMING_ROUNDS 300
#define TIMING_ROUND_NS 300000 /* long beside the clock's own cost, short beside a time slice */

static inline int64_t timing_now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000000000LL + t.tv_nsec;
}

/* Keeps the compiler from leaving out what computes `value`. */
static inline void timing_use(uint64_t value)
{
	__asm__ volatile("" : : "r"(value) : "memory");
}

/* Nanoseconds that one call of `work` takes. */
static inline double timing_best_ns(void (*work)(void *), void *argument)
{
	int64_t calls = 1, took_ns = 0;
	double best = 1e18;

	for (;; calls *= 2) { /* warms up, too */
		int64_t began = timing_now_ns();

		for (int64_t i = 0; i < calls; i++)
			work(argument);
		took_ns = timing_now_ns() - began;
		if (took_ns >= TIMING_ROUND_NS)
			break;
	}
	for (int round = 0; round < TIMING_ROUNDS; round++) {
		int64_t began = timing_now_ns();

		for (int64_t i = 0; i < calls; i++)
			work(argument);
		took_ns = timing_now_ns() - began;
		if ((double)took_ns / (double)calls < best)
			best = (double)took_ns / (double)calls;
	}
	return best;
}

#endif
