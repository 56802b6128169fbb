/* test_fib_memory: a build that runs out of memory at any of its allocations says so and leaks nothing.
 *
 * Compiles the table a second time, under other names, with allocators that fail on command; the address sanitizer
 * looks for what was not freed.
 */
#include <errno.h>
#include <stdlib.h>

#include "check.h"

static long allocations_left;

static void *limited_calloc(size_t count, size_t bytes)
{
	return allocations_left-- > 0 ? calloc(count, bytes) : NULL;
}

static void *limited_realloc(void *old, size_t bytes)
{
	return allocations_left-- > 0 ? realloc(old, bytes) : NULL;
}

#define calloc limited_calloc
#define realloc limited_realloc
#define fib_build limited_fib_build
#define fib_free limited_fib_free
#define fib_lookup limited_fib_lookup
#define fib_bytes limited_fib_bytes
#include "../../native/fib.c"

#define ENTRIES 40

int main(void)
{
	struct fib_entry entries[ENTRIES] = {0};
	struct fib *fib = NULL;
	size_t generous, thrifty;
	long needed = 0;

	for (uint8_t i = 0; i < ENTRIES; i++)
		entries[i] = (struct fib_entry){.net = {10, i, 1}, .value = i, .version = 4, .prefix_bits = 24};

	for (allocations_left = 0; fib_build(entries, ENTRIES, &fib); allocations_left = ++needed) {
		CHECK(fib == NULL);
		if (!CHECK(needed < 100))
			return check_done();
	}
	CHECK(needed > 3); /* so growing was tried too */
	CHECK(fib != NULL);
	thrifty = fib_bytes(fib); /* giving memory back was refused: the table is good all the same */
	for (uint8_t i = 0; i < ENTRIES; i++)
		CHECK(fib_lookup(fib, 4, (const uint8_t[]){10, i, 1, 9}) == i);
	fib_free(fib);

	allocations_left = 100;
	CHECK(fib_build(entries, ENTRIES, &fib) == 0);
	generous = fib_bytes(fib);
	CHECK(generous < thrifty);
	fib_free(fib);

	/* More entries than a leaf can number: refused before one is looked at. */
	CHECK(fib_build(entries, SIZE_MAX, &fib) == -ENOMEM);
	CHECK(fib_build(entries, EMPTY, &fib) == -ENOMEM);
	return check_done();
}
