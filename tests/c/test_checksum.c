/* test_checksum: the sums of checksum.h against an oracle that adds one byte at a time.
 *
 * The oracle works on bytes in network order and in small integers, so that it shares no trick with the code: it reads
 * big-endian words, adds, and folds after every addition.
 */
#include <arpa/inet.h>
#include <stdlib.h>
#include <string.h>

#include "checksum.h"
#include "check.h"

#define LENGTH_MAX 2100
#define ALIGNMENTS 16

/* One's complement addition of two 16-bit words. */
static uint16_t add_words(uint16_t a, uint16_t b)
{
	uint32_t sum = (uint32_t)a + b;

	return (uint16_t)(sum > 0xffff ? sum - 0xffff : sum);
}

/* The sum in host order. */
static uint16_t naive_sum(const uint8_t *bytes, size_t len)
{
	uint16_t sum = 0;

	for (size_t i = 0; i < len; i++)
		sum = add_words(sum, (uint16_t)(i % 2 ? bytes[i] : bytes[i] << 8));
	return sum;
}

/* 0 and 0xffff are the same number to one's complement, but "all zero" must be told from "adds up to zero". */
static void test_every_length_and_alignment(void)
{
	uint64_t random = 1;

	for (int kind = 0; kind < 3; kind++)
		for (size_t len = 0; len <= LENGTH_MAX; len++)
			for (size_t alignment = 0; alignment < ALIGNMENTS; alignment++) {
				/* Ends with the allocation, so that the sanitizer sees a byte too many. */
				uint8_t *block = malloc(alignment + len + !(alignment + len));
				uint8_t *bytes = block + alignment;

				for (size_t i = 0; i < len; i++)
					bytes[i] = kind == 0 ? (uint8_t)check_random(&random) : kind == 1 ? 0xff : 0;
				CHECK(ntohs(checksum_fold(checksum_add(0, bytes, len))) == naive_sum(bytes, len));
				free(block);
			}
}

static void test_long_runs_of_carries(void)
{
	size_t len = 1 << 20;
	uint8_t *bytes = malloc(len);
	uint64_t random = 2;

	memset(bytes, 0xff, len);
	CHECK(checksum_fold(checksum_add(0, bytes, len)) == 0xffff);
	CHECK(checksum_add(0, bytes, len) < 1ULL << 36);
	for (size_t i = 0; i < len; i++)
		bytes[i] = (uint8_t)(check_random(&random) | 0xf0);
	CHECK(ntohs(checksum_fold(checksum_add(0, bytes, len))) == naive_sum(bytes, len));
	free(bytes);
}

/* RFC 1071, 3: the bytes 00 01 f2 03 f4 f5 f6 f7 add up to ddf2. */
static void test_rfc_1071_example(void)
{
	static const uint8_t bytes[] = {0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7};

	CHECK(checksum_fold(checksum_add(0, bytes, sizeof(bytes))) == htons(0xddf2));
	CHECK(checksum_finish(checksum_add(0, bytes, sizeof(bytes))) == htons(0x220d));
}

/* Sums of pieces, one after the other or added up, are the sum of the whole if every piece but the last is even. */
static void test_pieces(void)
{
	uint8_t bytes[301];
	uint64_t random = 3;

	for (size_t i = 0; i < sizeof(bytes); i++)
		bytes[i] = (uint8_t)check_random(&random);
	for (size_t cut = 0; cut < sizeof(bytes); cut += 2) {
		uint64_t head = checksum_add(0, bytes, cut);
		uint64_t tail = checksum_add(0, bytes + cut, sizeof(bytes) - cut);
		uint16_t whole = naive_sum(bytes, sizeof(bytes));

		CHECK(ntohs(checksum_fold(head + tail)) == whole);
		CHECK(ntohs(checksum_fold(checksum_add(head, bytes + cut, sizeof(bytes) - cut))) == whole);
	}
	CHECK(checksum_add(0, bytes + 300, 1) == htons((uint16_t)(bytes[300] << 8)));
	CHECK(checksum_add(12345, bytes, 0) == 12345);
}

/* Folding keeps a number modulo 0xffff, and only zero becomes zero. */
static void test_fold(void)
{
	static const uint64_t edges[] = {
		0,           1,           0xfffe,             0xffff,             0x10000,
		0x1ffff,     0xffffffff,  0x100000000,        0x10000ffff,        0x1fffffffe,
		0x1ffffffff, 0x200000000, 0x8000800080007fff, 0xffffffff00000000, 0xffffffff00010000,
		UINT64_MAX,  UINT64_MAX - 1,
	};
	uint64_t random = 4;

	for (size_t i = 0; i < sizeof(edges) / sizeof(*edges); i++) {
		CHECK(checksum_fold(edges[i]) % 0xffff == edges[i] % 0xffff);
		CHECK((checksum_fold(edges[i]) == 0) == (edges[i] == 0));
		CHECK((checksum_finish(edges[i]) ^ checksum_fold(edges[i])) == 0xffff);
	}
	for (int i = 0; i < 100000; i++) {
		uint64_t sum = check_random(&random) >> (i % 64);

		CHECK(checksum_fold(sum) % 0xffff == sum % 0xffff);
		CHECK((checksum_fold(sum) == 0) == (sum == 0));
	}
}

/* The pseudo-headers as RFC 9293 (3.1) and RFC 8200 (8.1) draw them. */
static void test_pseudo(void)
{
	uint8_t ipv4[12], ipv6[40];
	uint64_t random = 5;

	for (int i = 0; i < 10000; i++) {
		uint32_t length = (uint32_t)check_random(&random) & 0xffff;
		uint8_t protocol = (uint8_t)check_random(&random);

		for (int j = 0; j < 32; j++)
			ipv6[j] = (uint8_t)check_random(&random);
		memcpy(ipv4, ipv6, 8);
		ipv4[8] = 0;
		ipv4[9] = protocol;
		ipv4[10] = (uint8_t)(length >> 8);
		ipv4[11] = (uint8_t)length;
		CHECK(ntohs(checksum_fold(checksum_pseudo(ipv4, 8, protocol, length))) == naive_sum(ipv4, 12));

		length |= (uint32_t)(i % 4) << 16; /* a jumbogram's length has more than 16 bits */
		ipv6[32] = (uint8_t)(length >> 24);
		ipv6[33] = (uint8_t)(length >> 16);
		ipv6[34] = (uint8_t)(length >> 8);
		ipv6[35] = (uint8_t)length;
		memset(ipv6 + 36, 0, 3);
		ipv6[39] = protocol;
		CHECK(ntohs(checksum_fold(checksum_pseudo(ipv6, 32, protocol, length))) == naive_sum(ipv6, 40));
	}
}

int main(void)
{
	test_every_length_and_alignment();
	test_long_runs_of_carries();
	test_rfc_1071_example();
	test_pieces();
	test_fold();
	test_pseudo();
	return check_done();
}
