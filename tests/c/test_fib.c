/* test_fib: the trie against an oracle that compares every prefix bit by bit.
 *
 * Addresses are not only drawn at random, where long prefixes are never met: each entry is looked up at its first and
 * last address and at the neighbours of both, where an off-by-one would show.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "check.h"
#include "fib.h"

static unsigned version_bits(uint8_t version)
{
	return version == 4 ? 32 : 128;
}

static bool bit(const uint8_t *address, unsigned i)
{
	return address[i / 8] >> (7 - i % 8) & 1;
}

static bool same_bits(const uint8_t *a, const uint8_t *b, unsigned bits)
{
	for (unsigned i = 0; i < bits; i++)
		if (bit(a, i) != bit(b, i))
			return false;
	return true;
}

static uint32_t linear_lookup(const struct fib_entry *entries, size_t count, uint8_t version, const uint8_t *address)
{
	const struct fib_entry *best = NULL;

	for (size_t i = 0; i < count; i++)
		if (entries[i].version == version && (!best || entries[i].prefix_bits >= best->prefix_bits) &&
		    same_bits(entries[i].net, address, entries[i].prefix_bits))
			best = &entries[i];
	return best ? best->value : FIB_NONE;
}

static bool linear_has(const struct fib_entry *entries, size_t count, const struct fib_entry *entry)
{
	for (size_t i = 0; i < count; i++)
		if (entries[i].version == entry->version && entries[i].prefix_bits == entry->prefix_bits &&
		    same_bits(entries[i].net, entry->net, entry->prefix_bits))
			return true;
	return false;
}

static void add_one(uint8_t *address, unsigned bits)
{
	for (unsigned i = bits / 8; i-- > 0 && !++address[i];)
		;
}

static void take_one(uint8_t *address, unsigned bits)
{
	for (unsigned i = bits / 8; i-- > 0 && !address[i]--;)
		;
}

static void check_edges(const struct fib *fib, const struct fib_entry *entries, size_t count,
			const struct fib_entry *entry)
{
	unsigned bits = version_bits(entry->version);
	uint8_t first[16], last[16];

	memcpy(first, entry->net, 16);
	memcpy(last, entry->net, 16);
	for (unsigned i = entry->prefix_bits; i < bits; i++) {
		first[i / 8] &= (uint8_t)~(0x80 >> i % 8);
		last[i / 8] |= (uint8_t)(0x80 >> i % 8);
	}
	for (int side = 0; side < 2; side++) { /* inside, then just outside */
		CHECK(fib_lookup(fib, entry->version, first) == linear_lookup(entries, count, entry->version, first));
		CHECK(fib_lookup(fib, entry->version, last) == linear_lookup(entries, count, entry->version, last));
		take_one(first, bits);
		add_one(last, bits);
	}
}

static struct fib_entry ipv4_entry(uint32_t net, uint8_t prefix_bits, uint32_t value)
{
	struct fib_entry entry = {.value = value, .version = 4, .prefix_bits = prefix_bits};

	for (int i = 0; i < 4; i++)
		entry.net[i] = (uint8_t)(net >> (24 - 8 * i));
	return entry;
}

static uint32_t ipv4_lookup(const struct fib *fib, uint32_t address)
{
	uint8_t bytes[4] = {(uint8_t)(address >> 24), (uint8_t)(address >> 16), (uint8_t)(address >> 8),
			    (uint8_t)address};

	return fib_lookup(fib, 4, bytes);
}

static void test_empty(void)
{
	static const uint8_t zeros[16], ones[16] = {255, 255, 255, 255, 255, 255, 255, 255,
						    255, 255, 255, 255, 255, 255, 255, 255};
	struct fib *fib = NULL;

	CHECK(fib_build(NULL, 0, &fib) == 0);
	for (uint8_t version = 4; version <= 6; version += 2) {
		CHECK(fib_lookup(fib, version, zeros) == FIB_NONE);
		CHECK(fib_lookup(fib, version, ones) == FIB_NONE);
	}
	CHECK(fib_bytes(fib) >= 2048 && fib_bytes(fib) < 4096);
	fib_free(fib);
	fib_free(NULL);
}

/* A prefix of every length along one address, entered longest first and shortest first. */
static void test_nested(void)
{
	for (uint8_t version = 4; version <= 6; version += 2) {
		unsigned bits = version_bits(version);
		struct fib_entry entries[129];
		uint8_t address[16];
		uint64_t random = 7;

		for (size_t i = 0; i < 16; i++)
			address[i] = (uint8_t)check_random(&random);
		for (int turned = 0; turned < 2; turned++) {
			struct fib *fib;

			for (unsigned i = 0; i <= bits; i++) {
				struct fib_entry *entry = &entries[turned ? bits - i : i];

				*entry = (struct fib_entry){.value = i, .version = version, .prefix_bits = (uint8_t)i};
				memcpy(entry->net, address, 16);
			}
			if (!CHECK(fib_build(entries, bits + 1, &fib) == 0))
				continue;
			CHECK(fib_lookup(fib, version, address) == bits);
			for (unsigned i = 0; i < bits; i++) { /* flipping bit i leaves the prefixes up to length i */
				uint8_t other[16];

				memcpy(other, address, 16);
				other[i / 8] ^= (uint8_t)(0x80 >> i % 8);
				CHECK(fib_lookup(fib, version, other) == i);
			}
			fib_free(fib);
		}
	}
}

static void test_bits_past_the_prefix_are_ignored(void)
{
	struct fib_entry entries[] = {ipv4_entry(0x0a01ffff, 16, 1), ipv4_entry(0x0a0203ff, 24, 2),
				      ipv4_entry(0xffffffff, 0, 3)};
	struct fib *fib;

	CHECK(fib_build(entries, 3, &fib) == 0);
	CHECK(ipv4_lookup(fib, 0x0a010000) == 1);
	CHECK(ipv4_lookup(fib, 0x0a020300) == 2);
	CHECK(ipv4_lookup(fib, 0x0a020400) == 3);
	fib_free(fib);
}

/* Random tables: few bits vary, so that prefixes overlap and duplicates come up by themselves. */
static void test_random(uint8_t version, size_t rounds)
{
	unsigned bits = version_bits(version);
	uint64_t random = 11 * version;

	for (size_t round = 0; round < rounds; round++) {
		size_t wanted = check_random(&random) % 200, count = 0;
		unsigned varying = 1 + (unsigned)(check_random(&random) % bits);
		struct fib_entry entries[200];
		struct fib *fib;

		for (size_t i = 0; i < wanted; i++) {
			struct fib_entry entry = {.value = (uint32_t)check_random(&random) & 0x7fffffff,
						  .version = version};
			uint64_t dice = check_random(&random) % 16;

			if (entry.value > FIB_VALUE_MAX)
				entry.value = 0;
			entry.prefix_bits = (uint8_t)(dice == 0	 ? bits
						      : dice < 8 ? check_random(&random) % (bits / 8 + 1) * 8
								 : check_random(&random) % (bits + 1));
			for (unsigned b = 0; b < 128; b++) /* a few bits at the top, then clusters */
				if (b % varying < 5 && check_random(&random) % 2)
					entry.net[b / 8] |= (uint8_t)(0x80 >> b % 8);
			if (linear_has(entries, count, &entry)) {
				struct fib *untouched = (struct fib *)entries;

				entries[count] = entry;
				CHECK(fib_build(entries, count + 1, &untouched) == -EEXIST);
				CHECK(untouched == (struct fib *)entries);
				continue;
			}
			entries[count++] = entry;
		}
		if (!CHECK(fib_build(entries, count, &fib) == 0))
			return;
		for (size_t i = 0; i < count; i++)
			check_edges(fib, entries, count, &entries[i]);
		for (int i = 0; i < 100; i++) {
			uint8_t address[16];

			for (size_t b = 0; b < 16; b++)
				address[b] = (uint8_t)check_random(&random);
			CHECK(fib_lookup(fib, version, address) == linear_lookup(entries, count, version, address));
		}
		fib_free(fib);
	}
}

/* IPv4 and IPv6 with the same leading bytes have nothing to do with each other. */
static void test_versions_apart(void)
{
	struct fib_entry entries[] = {ipv4_entry(0x0a010000, 16, 4), ipv4_entry(0x0a010000, 16, 6)};
	uint8_t address[16] = {10, 1, 2, 3}, elsewhere[16] = {10, 2};
	struct fib *fib;

	entries[1].version = 6;
	CHECK(fib_build(entries, 2, &fib) == 0);
	CHECK(fib_lookup(fib, 4, address) == 4);
	CHECK(fib_lookup(fib, 6, address) == 6);
	CHECK(fib_lookup(fib, 4, elsewhere) == FIB_NONE);
	CHECK(fib_lookup(fib, 6, elsewhere) == FIB_NONE);
	fib_free(fib);
	CHECK(fib_build(entries + 1, 1, &fib) == 0);
	CHECK(fib_lookup(fib, 4, address) == FIB_NONE);
	fib_free(fib);
}

static void test_duplicates(void)
{
	struct fib *fib = NULL;

	/* The same bits at different lengths share slots, and are no duplicates. */
	struct fib_entry shared[] = {ipv4_entry(0, 0, 0),           ipv4_entry(0x0a000000, 8, 1),
				     ipv4_entry(0x0a000000, 9, 2),  ipv4_entry(0x0a000000, 16, 3),
				     ipv4_entry(0x0a000000, 17, 4), ipv4_entry(0x0a000000, 24, 5),
				     ipv4_entry(0x0a000000, 32, 6), ipv4_entry(0x0a800000, 9, 7)};
	/* Same prefix: apart in the array, told apart only by ignored bits, at either end of the length's range. */
	struct fib_entry twice[][2] = {{ipv4_entry(0, 0, 1), ipv4_entry(0xffffffff, 0, 2)},
				       {ipv4_entry(0x0a000000, 8, 1), ipv4_entry(0x0aff0000, 8, 1)},
				       {ipv4_entry(0x0a400000, 10, 1), ipv4_entry(0x0a7fffff, 10, 2)},
				       {ipv4_entry(0x0a010200, 24, 1), ipv4_entry(0x0a0102ff, 24, 2)},
				       {ipv4_entry(0x0a010203, 32, 1), ipv4_entry(0x0a010203, 32, 2)}};

	CHECK(fib_build(shared, 8, &fib) == 0);
	fib_free(fib);
	for (size_t i = 0; i < sizeof(twice) / sizeof(*twice); i++) {
		struct fib_entry entries[10];

		fib = NULL;
		CHECK(fib_build(twice[i], 2, &fib) == -EEXIST);
		CHECK(fib == NULL);

		/* ... also with longer and shorter prefixes in the same slots */
		entries[0] = twice[i][0];
		memcpy(entries + 1, shared, sizeof(shared));
		entries[9] = twice[i][1];
		CHECK(fib_build(entries, 10, &fib) == -EEXIST);
		CHECK(fib == NULL);
		entries[0].version = entries[9].version = 6; /* the same in IPv6 */
		CHECK(fib_build(entries, 10, &fib) == -EEXIST);
		entries[9].version = 4; /* and one of each is none */
		entries[9].prefix_bits = 31;
		CHECK(fib_build(entries, 10, &fib) == 0);
		fib_free(fib);
	}
}

static void test_invalid(void)
{
	static const struct {
		uint8_t version, prefix_bits;
		uint32_t value;
		int error;
	} cases[] = {
		{4, 32, FIB_VALUE_MAX, 0},
		{6, 128, FIB_VALUE_MAX, 0},
		{4, 0, 0, 0},
		{4, 33, 0, -EINVAL},
		{4, 128, 0, -EINVAL},
		{6, 129, 0, -EINVAL},
		{6, 255, 0, -EINVAL},
		{0, 0, 0, -EINVAL},
		{5, 0, 0, -EINVAL},
		{46, 0, 0, -EINVAL},
		{4, 8, FIB_VALUE_MAX + 1, -EINVAL},
		{6, 8, FIB_NONE, -EINVAL},
		{4, 8, 0x80000000, -EINVAL},
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		struct fib_entry entries[] = {ipv4_entry(0x0a000000, 8, 1), ipv4_entry(0x0b000000, 8, cases[i].value)};
		uint8_t address[16] = {0x0b};
		struct fib *fib = NULL;

		entries[1].version = cases[i].version;
		entries[1].prefix_bits = cases[i].prefix_bits;
		CHECK(fib_build(entries, 2, &fib) == cases[i].error);
		CHECK((fib != NULL) == !cases[i].error);
		if (fib && cases[i].prefix_bits == 0)
			CHECK(fib_lookup(fib, cases[i].version, address) == cases[i].value);
		fib_free(fib);
	}
}

/* As many subnets as flannel can hand out, in random order: right, small, and not quadratic. */
static void test_65536_subnets(void)
{
	size_t count = 65536;
	struct fib_entry *entries = malloc(count * sizeof(*entries));
	uint64_t random = 13;
	struct fib *fib;
	clock_t start;

	for (size_t i = 0; i < count; i++)
		entries[i] = ipv4_entry(0x0a000000 | (uint32_t)i << 8, 24, (uint32_t)i);
	for (size_t i = count - 1; i > 0; i--) {
		size_t j = check_random(&random) % (i + 1);
		struct fib_entry other = entries[i];

		entries[i] = entries[j];
		entries[j] = other;
	}
	start = clock();
	CHECK(fib_build(entries, count, &fib) == 0);
	CHECK(clock() - start < CLOCKS_PER_SEC); /* of CPU time; milliseconds without sanitizers */
	CHECK(fib_bytes(fib) < 260 * 1024);
	for (uint32_t i = 0; i < count; i++) {
		CHECK(ipv4_lookup(fib, 0x0a000000 | i << 8) == i);
		CHECK(ipv4_lookup(fib, 0x0a0000ff | i << 8) == i);
	}
	CHECK(ipv4_lookup(fib, 0x09ffffff) == FIB_NONE);
	CHECK(ipv4_lookup(fib, 0x0b000000) == FIB_NONE);
	fib_free(fib);

	entries[count - 1] = entries[0]; /* one duplicate among them all */
	fib = NULL;
	CHECK(fib_build(entries, count, &fib) == -EEXIST);
	CHECK(fib == NULL);
	free(entries);
}

int main(void)
{
	test_empty();
	test_nested();
	test_bits_past_the_prefix_are_ignored();
	test_random(4, 400);
	test_random(6, 100);
	test_versions_apart();
	test_duplicates();
	test_invalid();
	test_65536_subnets();
	return check_done();
}
