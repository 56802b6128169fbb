/* test_checksum_implementations: every way to add bytes up, and the choice between them, against an oracle that adds
 * one byte at a time and folds after every one.
 *
 * What is compared is the folded sum, with 0 told from 0xffff: an implementation may carry differently on the way. The
 * bytes around those that are summed are never zero, so that one too many or too few shows; that none is even read is
 * for the page without access on either side. This program needs no sanitizer to be of use.
 */
#include <arpa/inet.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "checksum.h"
#include "checksum_impl.h"
#include "check.h"

#define LENGTH_MAX 4096
#define ALIGNMENTS 64
#define LARGE ((size_t)1 << 20)
#define THREADS 4
#define IMPLEMENTATIONS_MAX 8

enum pattern {
	RANDOM,
	ONES,           /* a carry out of every addition but the first */
	NEARLY_ONES,    /* random, but carrying nearly always */
	ONES_AND_ONE,   /* ffff ffff ffff ffff 0000 0000 0000 0001: ripples through a whole word, then nothing */
	LOW_HALVES,     /* of 64-bit words, all ones; the others zero */
	HIGH_HALVES,
	BORROWS,        /* high halves all ones, low halves one: whole words overflow, and their low halves do not */
	ZEROS,
	PATTERNS,
};

/* The implementations of this machine, and checksum_add itself behind them. */
static struct checksum_implementation all[IMPLEMENTATIONS_MAX + 1];
static size_t all_count;

static void list_all(void)
{
	const struct checksum_implementation *table = checksum_implementations(&all_count);

	if (!CHECK(all_count >= 1 && all_count <= IMPLEMENTATIONS_MAX))
		exit(check_done());
	memcpy(all, table, all_count * sizeof(*table));
	CHECK(strcmp(all[0].name, "scalar") == 0);
	for (size_t i = 0; i < all_count; i++)
		printf("implementation: %s\n", all[i].name);
	all[all_count++] = (struct checksum_implementation){ "checksum_add", checksum_add };
}

static uint8_t pattern_byte(enum pattern pattern, size_t i, uint64_t *random)
{
	switch (pattern) {
	case RANDOM:
		return (uint8_t)check_random(random);
	case ONES:
		return 0xff;
	case NEARLY_ONES:
		return (uint8_t)(check_random(random) | 0xf0);
	case ONES_AND_ONE:
		return i % 16 < 8 ? 0xff : i % 16 == 15;
	case LOW_HALVES:
		return i % 8 < 4 ? 0xff : 0;
	case HIGH_HALVES:
		return i % 8 < 4 ? 0 : 0xff;
	case BORROWS:
		return i % 8 < 4 ? i % 8 == 0 : 0xff;
	default:
		return 0;
	}
}

static void fill(uint8_t *bytes, size_t len, enum pattern pattern)
{
	uint64_t random = 1 + (uint64_t)pattern;

	for (size_t i = 0; i < len; i++)
		bytes[i] = pattern_byte(pattern, i, &random);
}

/* The oracle: the sum, in host order, of all that it was told so far. Each byte is added as what it counts for. */
struct naive {
	uint32_t sum;
	bool odd;
};

static void naive_add(struct naive *n, uint8_t byte)
{
	n->sum += n->odd ? byte : (uint32_t)byte << 8;
	if (n->sum > 0xffff)
		n->sum -= 0xffff;
	n->odd = !n->odd;
}

static uint16_t naive_sum(const uint8_t *bytes, size_t len)
{
	struct naive n = { 0 };

	for (size_t i = 0; i < len; i++)
		naive_add(&n, bytes[i]);
	return (uint16_t)n.sum;
}

static void check_all(const uint8_t *bytes, size_t len, uint16_t expected)
{
	for (size_t i = 0; i < all_count; i++) {
		uint64_t sum = all[i].add(0, bytes, len);

		if (!CHECK(ntohs(checksum_fold(sum)) == expected && sum < 1ULL << 36))
			printf("%s: %zu bytes: %llx\n", all[i].name, len, (unsigned long long)sum);
	}
}

static void test_every_length_and_alignment(void)
{
	static uint8_t bytes[LENGTH_MAX];
	static uint8_t block[ALIGNMENTS + LENGTH_MAX + ALIGNMENTS] __attribute__((aligned(ALIGNMENTS)));

	for (int pattern = 0; pattern < PATTERNS; pattern++) {
		fill(bytes, sizeof(bytes), pattern);
		for (size_t alignment = 0; alignment < ALIGNMENTS; alignment++) {
			struct naive expected = { 0 };

			memset(block, 0xa5, sizeof(block));
			for (size_t len = 0; len <= LENGTH_MAX; len++) {
				check_all(block + alignment, len, (uint16_t)expected.sum);
				if (len < LENGTH_MAX) {
					block[alignment + len] = bytes[len];
					naive_add(&expected, bytes[len]);
				}
			}
		}
	}
}

/* One byte that is not zero, at every place: each must count once, as what it is, in each lane and each remainder. */
static void test_every_single_byte(void)
{
	static uint8_t bytes[640];

	for (size_t len = 1; len <= sizeof(bytes); len += len < 300 ? 1 : 17)
		for (size_t at = 0; at < len; at++) {
			bytes[at] = 1;
			check_all(bytes, len, at % 2 ? 0x0001 : 0x0100);
			bytes[at] = 0;
		}
}

/* Nothing outside is read: a page that may not be touched stands before or behind. */
static void test_nothing_beyond(void)
{
	size_t page = (size_t)sysconf(_SC_PAGESIZE), room = (LENGTH_MAX + page - 1) / page * page;
	uint8_t *map = mmap(NULL, room + 2 * page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	uint8_t *first = map + page, *end = first + room;

	if (!CHECK(map != MAP_FAILED && mprotect(first, room, PROT_READ | PROT_WRITE) == 0))
		return;
	fill(first, room, RANDOM);
	for (size_t len = 0; len <= LENGTH_MAX; len++) {
		check_all(first, len, naive_sum(first, len));
		check_all(end - len, len, naive_sum(end - len, len));
	}
	munmap(map, room + 2 * page);
}

static void test_large(void)
{
	static const size_t lengths[] = { 9000, 65000, 65535, 65536, 65537, 65563, 262143, LARGE - 1, LARGE };
	uint8_t *block = malloc(LARGE + 3);

	for (int pattern = 0; pattern < PATTERNS; pattern++)
		for (size_t offset = 0; offset <= 3; offset += 3)
			for (size_t i = 0; i < sizeof(lengths) / sizeof(*lengths); i++) {
				fill(block + offset, lengths[i], pattern);
				check_all(block + offset, lengths[i], naive_sum(block + offset, lengths[i]));
			}
	free(block);
}

/* A sum is carried on as a plain addition would, and pieces add up to the whole. */
static void test_sums_add_up(void)
{
	uint8_t bytes[1500];
	uint64_t random = 9;

	fill(bytes, sizeof(bytes), RANDOM);
	for (size_t i = 0; i < all_count; i++)
		for (size_t cut = 0; cut <= sizeof(bytes); cut += 2) {
			uint64_t start = check_random(&random) >> 8;
			uint64_t head = all[i].add(0, bytes, cut), tail = all[i].add(0, bytes + cut, sizeof(bytes) - cut);

			CHECK(all[i].add(start, bytes, cut) == start + head);
			CHECK(ntohs(checksum_fold(head + tail)) == naive_sum(bytes, sizeof(bytes)));
		}
}

/* The first to call may be many at once. Runs before anything else has called. */
static void *sum_in_thread(void *barrier)
{
	uint8_t bytes[1400];
	uint16_t *result = malloc(sizeof(*result));
	size_t count;

	fill(bytes, sizeof(bytes), RANDOM);
	pthread_barrier_wait(barrier);
	*result = ntohs(checksum_fold(checksum_add(0, bytes, sizeof(bytes))));
	*result = (uint16_t)(*result ^ naive_sum(bytes, sizeof(bytes)));
	checksum_implementations(&count);
	return result;
}

static void test_threads_at_once(void)
{
	pthread_barrier_t barrier;
	pthread_t threads[THREADS];

	pthread_barrier_init(&barrier, NULL, THREADS);
	for (int i = 0; i < THREADS; i++)
		CHECK(pthread_create(&threads[i], NULL, sum_in_thread, &barrier) == 0);
	for (int i = 0; i < THREADS; i++) {
		void *result;

		pthread_join(threads[i], &result);
		CHECK(*(uint16_t *)result == 0);
		free(result);
	}
	pthread_barrier_destroy(&barrier);
}

int main(void)
{
	test_threads_at_once();
	list_all();
	test_every_length_and_alignment();
	test_every_single_byte();
	test_nothing_beyond();
	test_large();
	test_sums_add_up();
	return check_done();
}
