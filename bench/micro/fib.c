/* fib: lookups per second by size of the table, IPv4 /24s as in a cluster; and how long a table takes to build.
 *
 * *spread* looks up addresses all over the table, in an order the processor cannot foresee; *one flow* the same one.
 */
#include <stdio.h>
#include <stdlib.h>

#include "fib.h"
#include "timing.h"

#define ADDRESSES 65536
#define BUILDS 20

struct job {
	const struct fib *fib;
	const uint8_t (*addresses)[4];
	uint32_t count;
	uint32_t next;
};

static void work(void *argument)
{
	struct job *job = argument;
	uint64_t sum = 0;

	for (int i = 0; i < 64; i++)
		sum += fib_lookup(job->fib, 4, job->addresses[job->next++ & (job->count - 1)]);
	timing_use(sum);
}

static uint32_t draw(uint32_t *state)
{
	*state = *state * 1664525U + 1013904223U;
	return *state >> 8;
}

static void subnets(struct fib_entry *entries, uint32_t count)
{
	for (uint32_t i = 0; i < count; i++)
		entries[i] = (struct fib_entry){ .net = { 10, (uint8_t)(i >> 8), (uint8_t)i }, .value = i, .version = 4,
						 .prefix_bits = 24 };
}

static double best_build_ns(const struct fib_entry *entries, uint32_t count, struct fib **out)
{
	double best = 1e18;

	for (int i = 0; i < BUILDS; i++) {
		int64_t began = timing_now_ns();

		fib_free(*out);
		*out = NULL;
		if (fib_build(entries, count, out))
			exit(1);
		if ((double)(timing_now_ns() - began) < best)
			best = (double)(timing_now_ns() - began);
	}
	return best;
}

int main(void)
{
	static const uint32_t sizes[] = { 1, 256, 5000, 65536 };
	static uint8_t addresses[ADDRESSES][4];
	static struct fib_entry entries[65536];

	printf("fib, IPv4\n%10s %14s %14s %12s %12s\n", "subnets", "spread M/s", "one flow M/s", "build ms", "KB");
	for (size_t s = 0; s < sizeof(sizes) / sizeof(*sizes); s++) {
		struct fib *fib = NULL;
		uint32_t state = 1;

		subnets(entries, sizes[s]);
		for (int i = 0; i < ADDRESSES; i++) {
			uint32_t subnet = draw(&state) % sizes[s];

			addresses[i][0] = 10;
			addresses[i][1] = (uint8_t)(subnet >> 8);
			addresses[i][2] = (uint8_t)subnet;
			addresses[i][3] = (uint8_t)draw(&state);
		}
		double build_ns = best_build_ns(entries, sizes[s], &fib);
		struct job spread = { fib, addresses, ADDRESSES, 0 }, same = { fib, addresses, 1, 0 };

		printf("%10u %14.1f %14.1f %12.3f %12zu\n", sizes[s], 64e3 / timing_best_ns(work, &spread),
		       64e3 / timing_best_ns(work, &same), build_ns / 1e6, fib_bytes(fib) / 1024);
		fib_free(fib);
	}
	return 0;
}
