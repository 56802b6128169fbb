/* fuzz_fib: a table is built exactly when every entry is valid and no prefix comes twice, and then gives each address
 * the value that a comparison with every entry gives.
 *
 * The input is a list of entries: a byte of version, one of length, one of value and the network, 4 bytes or 16. Looked
 * up are the networks as written, with their bits past the prefix, and what lies just inside and outside of each.
 */
#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "fib.h"

#define ENTRIES_MAX 64
#define REQUIRE(condition) ((condition) ? (void)0 : __builtin_trap())

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Reads an entry and returns how many bytes it took, 0 at the end. The last two values stand for the largest that is
 * allowed and the smallest that is not. */
static size_t read_entry(const uint8_t *data, size_t size, struct fib_entry *entry)
{
	size_t net_bytes = size && data[0] == 4 ? 4 : 16;

	if (size < 3 + net_bytes)
		return 0;
	*entry = (struct fib_entry){.version = data[0], .prefix_bits = data[1], .value = data[2]};
	if (data[2] >= 0xfe)
		entry->value = FIB_VALUE_MAX + (data[2] == 0xff);
	memcpy(entry->net, data + 3, net_bytes);
	return 3 + net_bytes;
}

static bool holds(const struct fib_entry *entry, const uint8_t *address)
{
	unsigned bytes = entry->prefix_bits / 8, bits = entry->prefix_bits % 8;

	return !memcmp(entry->net, address, bytes) && (!bits || !((entry->net[bytes] ^ address[bytes]) >> (8 - bits)));
}

static int linear_build(const struct fib_entry *entries, size_t count)
{
	for (size_t i = 0; i < count; i++)
		if ((entries[i].version != 4 && entries[i].version != 6) || entries[i].value > FIB_VALUE_MAX ||
		    entries[i].prefix_bits > (entries[i].version == 4 ? 32 : 128))
			return -EINVAL;
	for (size_t i = 0; i < count; i++)
		for (size_t j = 0; j < i; j++)
			if (entries[i].version == entries[j].version &&
			    entries[i].prefix_bits == entries[j].prefix_bits && holds(&entries[i], entries[j].net))
				return -EEXIST;
	return 0;
}

static uint32_t linear_lookup(const struct fib_entry *entries, size_t count, uint8_t version, const uint8_t *address)
{
	uint32_t value = FIB_NONE;
	int longest = -1;

	for (size_t i = 0; i < count; i++)
		if (entries[i].version == version && entries[i].prefix_bits > longest && holds(&entries[i], address)) {
			longest = entries[i].prefix_bits;
			value = entries[i].value;
		}
	return value;
}

static void check_address(const struct fib *fib, const struct fib_entry *entries, size_t count, const uint8_t *address)
{
	for (uint8_t version = 4; version <= 6; version += 2) {
		/* As long as the version says and no longer, for the sanitizer. */
		size_t bytes = version == 4 ? 4 : 16;
		uint8_t *exact = malloc(bytes);

		memcpy(exact, address, bytes);
		REQUIRE(fib_lookup(fib, version, exact) == linear_lookup(entries, count, version, exact));
		free(exact);
	}
}

/* The address with its bits from `bit` on turned to all zeros or all ones. */
static void blur(uint8_t *address, unsigned bit, bool ones)
{
	for (unsigned i = bit; i < 128; i++) {
		uint8_t mask = (uint8_t)(0x80 >> i % 8);

		address[i / 8] = (uint8_t)(ones ? address[i / 8] | mask : address[i / 8] & ~mask);
	}
}

static void check_around(const struct fib *fib, const struct fib_entry *entries, size_t count,
			 const struct fib_entry *entry)
{
	uint8_t address[16];

	memcpy(address, entry->net, 16);
	check_address(fib, entries, count, address);
	for (int ones = 0; ones < 2; ones++) {
		blur(address, entry->prefix_bits, ones);
		check_address(fib, entries, count, address);
		if (entry->prefix_bits) { /* the neighbour that differs in the prefix's last bit */
			unsigned last = entry->prefix_bits - 1U;

			address[last / 8] ^= (uint8_t)(0x80 >> last % 8);
			check_address(fib, entries, count, address);
			address[last / 8] ^= (uint8_t)(0x80 >> last % 8);
		}
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct fib_entry entries[ENTRIES_MAX], *exact;
	struct fib *fib = NULL;
	size_t count = 0, took;

	while (count < ENTRIES_MAX && (took = read_entry(data, size, &entries[count]))) {
		data += took;
		size -= took;
		count++;
	}
	exact = malloc(count * sizeof(*exact) + !count);
	memcpy(exact, entries, count * sizeof(*exact));
	REQUIRE(fib_build(exact, count, &fib) == linear_build(entries, count));
	free(exact); /* borrowed until the call returned */
	if (fib) {
		REQUIRE(linear_build(entries, count) == 0);
		REQUIRE(fib_bytes(fib) >= 2048);
		for (size_t i = 0; i < count; i++)
			check_around(fib, entries, count, &entries[i]);
		fib_free(fib);
	}
	return 0;
}
