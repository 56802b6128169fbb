/* check: the smallest test harness that will do.
 *
 * Owns counting. A test program calls CHECK as often as it likes and ends main with `return check_done();`, which
 * prints "N passed, N failed" and gives the exit status. A check that fails lets the program go on, and is told only
 * the first time at each place: one broken loop of a million should not bury the rest. It must not know what is tested.
 */
#ifndef CHECK_H
#define CHECK_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

static unsigned long check_passed, check_failed;

static inline bool check_count(bool ok, unsigned long *failed_here, const char *file, int line, const char *what)
{
	if (ok) {
		check_passed++;
		return true;
	}
	check_failed++;
	if (++*failed_here == 1) {
		printf("%s:%d: failed: %s\n", file, line, what);
		fflush(stdout); /* a sanitizer may end the program */
	}
	return false;
}

/* Counts one check. Is the condition's value, so that a test can print more or give up. */
#define CHECK(condition)                                                                                               \
	({                                                                                                             \
		static unsigned long failed_here_;                                                                     \
		check_count((condition), &failed_here_, __FILE__, __LINE__, #condition);                               \
	})

static inline int check_done(void)
{
	printf("%lu passed, %lu failed\n", check_passed, check_failed);
	return check_failed ? 1 : 0;
}

/* A reproducible stream of random numbers (xorshift64*). The state must not be zero. */
static inline uint64_t check_random(uint64_t *state)
{
	*state ^= *state >> 12;
	*state ^= *state << 25;
	*state ^= *state >> 27;
	return *state * 0x2545f4914f6cdd1dULL;
}

#endif
