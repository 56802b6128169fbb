/* bytes: words in a packet, at any alignment, in the order in which they stand (network order). */
#ifndef UDPB_BYTES_H
#define UDPB_BYTES_H

#include <stdint.h>
#include <string.h>

static inline uint16_t load16(const uint8_t *at)
{
	uint16_t value;

	memcpy(&value, at, sizeof(value));
	return value;
}

static inline uint32_t load32(const uint8_t *at)
{
	uint32_t value;

	memcpy(&value, at, sizeof(value));
	return value;
}

static inline void store16(uint8_t *at, uint16_t value)
{
	memcpy(at, &value, sizeof(value));
}

static inline void store32(uint8_t *at, uint32_t value)
{
	memcpy(at, &value, sizeof(value));
}

#endif
