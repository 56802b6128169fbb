/* checksum: gigabytes per second of each implementation, by length; data in the first-level cache where it fits. */
#include <stdio.h>
#include <stdlib.h>

#include "checksum.h"
#include "checksum_impl.h"
#include "timing.h"

#define BYTES_MAX 65536

struct job {
	uint64_t (*add)(uint64_t sum, const void *bytes, size_t len);
	const uint8_t *bytes;
	size_t len;
};

static void work(void *argument)
{
	const struct job *job = argument;

	timing_use(job->add(0, job->bytes, job->len));
}

int main(void)
{
	static const size_t sizes[] = { 20, 40, 64, 128, 256, 512, 1400, 4096, 16384, BYTES_MAX };
	uint8_t *bytes = malloc(BYTES_MAX);
	size_t count;
	const struct checksum_implementation *all = checksum_implementations(&count);

	if (!bytes)
		return 1;
	for (size_t i = 0; i < BYTES_MAX; i++)
		bytes[i] = (uint8_t)(i * 131 + (i >> 8));
	printf("checksum, GB/s\n%10s", "bytes");
	for (size_t i = 0; i < count; i++)
		printf(" %12s", all[i].name);
	printf(" %12s\n", "as called");
	for (size_t s = 0; s < sizeof(sizes) / sizeof(*sizes); s++) {
		printf("%10zu", sizes[s]);
		for (size_t i = 0; i <= count; i++) {
			struct job job = { i < count ? all[i].add : checksum_add, bytes, sizes[s] };

			printf(" %12.2f", (double)sizes[s] / timing_best_ns(work, &job));
		}
		printf("\n");
	}
	free(bytes);
	return 0;
}
