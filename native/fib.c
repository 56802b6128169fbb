/* fib: an immutable longest-prefix table.
 *
 * Owns the trie, from the array it is built from to its last byte. It must not know what a packet or a peer is.
 *
 * Theory of operation
 *
 * A *node* stands for one byte of an address and has a *slot* for each of its 256 values. A slot is a *leaf* (the value
 * of the longest prefix that holds all addresses below it, or EMPTY) or, with its top bit set, the index of a *child*
 * node for the next byte. IPv4 and IPv6 have a root each. A lookup follows the address byte by byte until it meets a
 * leaf: no prefix is compared and nothing is walked back, because a leaf already is the answer. Where all subnets are
 * /24s of one /16 that takes three steps, in three nodes of one kilobyte each.
 *
 * Building. Prefixes go in by ascending length. A prefix covers a range of slots in one node, the one its last bit
 * falls into, and simply overwrites it: whatever stands there belongs to a shorter prefix, which loses. The range holds
 * no child, since only a longer prefix makes one. On its way down it turns a leaf into a child whose slots all start as
 * copies of that leaf, so that the shorter prefix goes on to hold where nothing longer does.
 *
 * Duplicates. While a table is being built a leaf is not a value but the index of the entry it comes from. The first
 * slot of a prefix's range holds the longest prefix so far that covers the range; if that one is as long, it is the
 * same prefix, and it can be nothing else. One comparison finds every duplicate. A last pass over the slots turns
 * indexes into values.
 *
 * Nodes are kept in one array and named by index, so that it may move as it grows.
 */
#include "fib.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#define NODE_SLOTS 256
#define CHILD 0x80000000U /* set: the other bits are a node's index; clear: a leaf */
#define EMPTY 0x7fffffffU /* the leaf that no prefix covers */

_Static_assert(FIB_VALUE_MAX < EMPTY, "a value must not look like EMPTY or a child");

enum { ROOT_4, ROOT_6, ROOTS };

struct node {
	uint32_t slot[NODE_SLOTS];
};

struct fib {
	struct node *nodes;
	size_t count;    /* nodes in use */
	size_t capacity; /* nodes allocated */
};

static uint8_t address_bits(uint8_t version)
{
	return version == 4 ? 32 : 128;
}

static bool entry_is_valid(const struct fib_entry *entry)
{
	return (entry->version == 4 || entry->version == 6) && entry->prefix_bits <= address_bits(entry->version) &&
	       entry->value <= FIB_VALUE_MAX;
}

/* Adds a node whose slots are all `leaf`. Returns its index, or -ENOMEM. */
static int64_t add_node(struct fib *fib, uint32_t leaf)
{
	if (fib->count == fib->capacity) {
		size_t capacity = fib->capacity ? 2 * fib->capacity : 8;
		struct node *nodes;

		if (capacity > CHILD || capacity > SIZE_MAX / sizeof(*nodes))
			return -ENOMEM;
		nodes = realloc(fib->nodes, capacity * sizeof(*nodes));
		if (!nodes)
			return -ENOMEM;
		fib->nodes = nodes;
		fib->capacity = capacity;
	}
	for (size_t i = 0; i < NODE_SLOTS; i++)
		fib->nodes[fib->count].slot[i] = leaf;
	return (int64_t)fib->count++;
}

/* Enters entries[index]. Every entry that is shorter is in already, none that is longer. */
static int insert(struct fib *fib, const struct fib_entry *entries, uint32_t index)
{
	const struct fib_entry *entry = &entries[index];
	size_t node = entry->version == 4 ? ROOT_4 : ROOT_6;
	unsigned bits = entry->prefix_bits; /* not yet walked */
	const uint8_t *byte = entry->net;
	unsigned first, slots;
	uint32_t covering;

	for (; bits > 8; bits -= 8, byte++) {
		uint32_t slot = fib->nodes[node].slot[*byte];

		if (!(slot & CHILD)) {
			int64_t child = add_node(fib, slot);

			if (child < 0)
				return (int)child;
			slot = CHILD | (uint32_t)child;
			fib->nodes[node].slot[*byte] = slot;
		}
		node = slot & ~CHILD;
	}
	slots = NODE_SLOTS >> bits;
	first = *byte & ~(slots - 1) & 0xff;
	covering = fib->nodes[node].slot[first];
	if (covering != EMPTY && entries[covering].prefix_bits == entry->prefix_bits)
		return -EEXIST;
	for (unsigned i = 0; i < slots; i++)
		fib->nodes[node].slot[first + i] = index;
	return 0;
}

/* Gives the indexes of `entries` by ascending prefix length: a counting sort. Returns NULL when out of memory. */
static uint32_t *order_by_length(const struct fib_entry *entries, size_t count)
{
	uint32_t *order = calloc(count, sizeof(*order));
	size_t start[128 + 2] = {0}; /* start[bits]: where the entries of that length begin */

	if (!order)
		return NULL;
	for (size_t i = 0; i < count; i++)
		start[entries[i].prefix_bits + 1]++;
	for (size_t bits = 1; bits <= 128; bits++)
		start[bits] += start[bits - 1];
	for (size_t i = 0; i < count; i++)
		order[start[entries[i].prefix_bits]++] = (uint32_t)i;
	return order;
}

static int insert_all(struct fib *fib, const struct fib_entry *entries, size_t count)
{
	uint32_t *order;
	int error = 0;

	if (!count)
		return 0;
	order = order_by_length(entries, count);
	if (!order)
		return -ENOMEM;
	for (size_t i = 0; i < count && !error; i++)
		error = insert(fib, entries, order[i]);
	free(order);
	return error;
}

/* The last step of building: leaves become values, memory that was not needed goes back. */
static void seal(struct fib *fib, const struct fib_entry *entries)
{
	struct node *fitting;

	for (size_t n = 0; n < fib->count; n++)
		for (size_t i = 0; i < NODE_SLOTS; i++) {
			uint32_t *slot = &fib->nodes[n].slot[i];

			if (*slot < EMPTY)
				*slot = entries[*slot].value;
		}
	fitting = realloc(fib->nodes, fib->count * sizeof(*fitting));
	if (fitting) {
		fib->nodes = fitting;
		fib->capacity = fib->count;
	}
}

int fib_build(const struct fib_entry *entries, size_t count, struct fib **out)
{
	struct fib *fib;
	int error = 0;

	if (count >= EMPTY) /* an index must fit a leaf */
		return -ENOMEM;
	for (size_t i = 0; i < count; i++)
		if (!entry_is_valid(&entries[i]))
			return -EINVAL;

	fib = calloc(1, sizeof(*fib));
	if (!fib)
		return -ENOMEM;
	while (fib->count < ROOTS && !error)
		error = add_node(fib, EMPTY) < 0 ? -ENOMEM : 0;
	if (!error)
		error = insert_all(fib, entries, count);
	if (error) {
		fib_free(fib);
		return error;
	}
	seal(fib, entries);
	*out = fib;
	return 0;
}

void fib_free(struct fib *fib)
{
	if (!fib)
		return;
	free(fib->nodes);
	free(fib);
}

uint32_t fib_lookup(const struct fib *fib, uint8_t version, const uint8_t *address)
{
	const struct node *nodes = fib->nodes;
	uint32_t slot = nodes[version == 4 ? ROOT_4 : ROOT_6].slot[*address];

	/* Ends within the address: no prefix is longer, so the node of its last byte has no child. */
	while (slot & CHILD)
		slot = nodes[slot & ~CHILD].slot[*++address];
	return slot == EMPTY ? FIB_NONE : slot;
}

size_t fib_bytes(const struct fib *fib)
{
	return sizeof(*fib) + fib->capacity * sizeof(*fib->nodes);
}
