/* packets: IP packets to test with, and what it takes to read them.
 *
 * Owns making valid packets and a checksum of its own, one word at a time, so that what packet.c makes is judged by
 * other code. Packets live in allocations of exactly their size: the address sanitizer sees every byte read or written
 * past them. It must not know what is being tested.
 */
#ifndef PACKETS_H
#define PACKETS_H

#include <arpa/inet.h>
#include <stdlib.h>
#include <string.h>

#include "check.h"
#include "packet.h"

#define COUNT(array) (sizeof(array) / sizeof(*(array)))

static uint64_t random_state = 17;

static inline uint32_t random_below(uint32_t limit)
{
	return (uint32_t)(check_random(&random_state) % limit);
}

static inline void fill_random(uint8_t *bytes, size_t len)
{
	for (size_t i = 0; i < len; i++)
		bytes[i] = (uint8_t)check_random(&random_state);
}

static inline uint32_t get_16(const uint8_t *at)
{
	return (uint32_t)at[0] << 8 | at[1];
}

static inline void put_16(uint8_t *at, uint32_t value)
{
	at[0] = (uint8_t)(value >> 8);
	at[1] = (uint8_t)value;
}

/* The uncomplemented sum of big-endian words. */
static inline uint32_t sum_16(uint32_t sum, const uint8_t *bytes, size_t len)
{
	for (size_t i = 0; i < len; i++) {
		sum += i % 2 ? bytes[i] : (uint32_t)bytes[i] << 8;
		sum = (sum & 0xffff) + (sum >> 16);
	}
	return sum;
}

struct ipv4_spec {
	uint32_t source, destination; /* host order; 0 takes one of ours */
	uint32_t fragment;            /* flags and offset as they stand in the header */
	uint8_t protocol;
	const uint8_t *options;
	size_t option_bytes;
	size_t payload_bytes;
};

static inline void seal(uint8_t *header)
{
	put_16(header + 10, 0);
	put_16(header + 10, ~sum_16(0, header, (header[0] & 0xfU) * 4));
}

/* A valid packet with random payload in an allocation of its own. */
static inline uint8_t *make_ipv4(struct ipv4_spec spec, size_t *len)
{
	size_t header_bytes = 20 + spec.option_bytes;
	uint32_t source = htonl(spec.source ? spec.source : 0x0a010203);
	uint32_t destination = htonl(spec.destination ? spec.destination : 0x0a020304);
	uint8_t *bytes;

	*len = header_bytes + spec.payload_bytes;
	bytes = malloc(*len);
	fill_random(bytes, *len);
	bytes[0] = (uint8_t)(0x40 | header_bytes / 4);
	put_16(bytes + 2, (uint32_t)*len);
	put_16(bytes + 6, spec.fragment);
	bytes[9] = spec.protocol;
	memcpy(bytes + 12, &source, 4);
	memcpy(bytes + 16, &destination, 4);
	if (spec.option_bytes)
		memcpy(bytes + 20, spec.options, spec.option_bytes);
	seal(bytes);
	return bytes;
}

static inline uint8_t *make_ipv6(uint8_t next_header, size_t payload_bytes, size_t *len)
{
	uint8_t *bytes;

	*len = 40 + payload_bytes;
	bytes = malloc(*len);
	fill_random(bytes, *len);
	bytes[0] = 0x60 | (bytes[0] & 0xf);
	put_16(bytes + 4, (uint32_t)payload_bytes);
	bytes[6] = next_header;
	return bytes;
}

/* Parses a copy of just these bytes. */
static inline enum packet_fault parse_exact(const uint8_t *bytes, size_t len)
{
	uint8_t *copy = malloc(len + !len);
	struct packet out, untouched;
	enum packet_fault fault;

	memcpy(copy, bytes, len);
	memset(&out, 0xa5, sizeof(out));
	memcpy(&untouched, &out, sizeof(out));
	fault = packet_parse(len ? copy : copy + 1, len, &out);
	if (fault)
		CHECK(!memcmp(&out, &untouched, sizeof(out)));
	free(copy);
	return fault;
}

#endif
