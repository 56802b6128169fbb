/* test_control: what is read of the control data of a received message, whole or cut off wherever it may be. */
#include <netinet/udp.h>
#include <stdlib.h>
#include <string.h>

#include "check.h"
#include "udp_io.h"

#define SEGMENT 1400
#define TOS 3

/* GRO and TOS, as the kernel tells them. */
static size_t make(uint8_t *out)
{
	struct cmsghdr *gro = (struct cmsghdr *)out, *tos = (struct cmsghdr *)(out + CMSG_SPACE(sizeof(int)));
	int bytes = SEGMENT;

	gro->cmsg_level = IPPROTO_UDP;
	gro->cmsg_type = UDP_GRO;
	gro->cmsg_len = CMSG_LEN(sizeof(bytes));
	memcpy(CMSG_DATA(gro), &bytes, sizeof(bytes));
	tos->cmsg_level = IPPROTO_IP;
	tos->cmsg_type = IP_TOS;
	tos->cmsg_len = CMSG_LEN(1);
	*CMSG_DATA(tos) = TOS;
	return CMSG_SPACE(sizeof(bytes)) + CMSG_SPACE(1);
}

/* In an allocation of exactly its size: the sanitizer sees a byte too many. */
static struct udp_io_about read_exactly(const uint8_t *control, size_t bytes)
{
	struct msghdr message = {.msg_control = malloc(bytes + !bytes), .msg_controllen = bytes};
	struct udp_io_about about;

	memcpy(message.msg_control, control, bytes);
	about = udp_io_get_about(&message);
	free(message.msg_control);
	return about;
}

static void test_cut_off(void)
{
	union { /* aligned */
		uint8_t bytes[2 * CMSG_SPACE(sizeof(int))];
		struct cmsghdr align;
	} control = {0};
	size_t whole = make(control.bytes), second = CMSG_SPACE(sizeof(int));

	for (size_t bytes = 0; bytes <= whole; bytes++) {
		struct udp_io_about about = read_exactly(control.bytes, bytes);

		CHECK(about.segment_bytes == (bytes >= CMSG_LEN(sizeof(int)) ? SEGMENT : 0));
		CHECK(about.tos == (bytes >= second + CMSG_LEN(1) ? TOS : 0));
	}
}

static void test_a_length_that_is_wrong(void)
{
	union {
		uint8_t bytes[2 * CMSG_SPACE(sizeof(int))];
		struct cmsghdr align;
	} control;
	size_t whole = make(control.bytes);

	for (size_t said = 0; said < 100; said++) {
		struct udp_io_about about;

		control.align.cmsg_len = said;
		about = read_exactly(control.bytes, whole);
		CHECK(about.segment_bytes == (said >= CMSG_LEN(sizeof(int)) ? SEGMENT : 0));
	}
}

int main(void)
{
	test_cut_off();
	test_a_length_that_is_wrong();
	return check_done();
}
