/* udp_io: see udp_io.h. */
#include "udp_io.h"

#include <errno.h>
#include <linux/errqueue.h>
#include <netinet/udp.h>
#include <string.h>
#include <unistd.h>

#include "udpb.h"

#define BUFFER_BYTES (8 << 20) /* the kernel doubles it; holds a burst of 128 full-sized GSO datagrams twice */
#define ERRORS_READ_MAX 16

/* The privileged form passes net.core.*mem_max; without CAP_NET_ADMIN in the initial namespace the plain one must do. */
static void set_buffer(int fd, int forced, int plain)
{
	int bytes = BUFFER_BYTES;

	if (setsockopt(fd, SOL_SOCKET, forced, &bytes, sizeof(bytes)) < 0)
		(void)setsockopt(fd, SOL_SOCKET, plain, &bytes, sizeof(bytes));
}

int udp_io_open(struct udp_io *io, int fd, uint32_t off)
{
	int recverr = 0, on = 1, gro = !(off & UDPB_OFFLOAD_UDP_GRO);
	int segment_bytes = 0;
	socklen_t length = sizeof(segment_bytes);
	int error = udp_io_set_discovery(fd, IP_PMTUDISC_DO);

	if (error)
		return error;
	/* A queued error keeps the fd ready until somebody reads the error queue: nobody does. */
	if (setsockopt(fd, IPPROTO_IP, IP_RECVERR, &recverr, sizeof(recverr)) < 0)
		return -errno;
	if (setsockopt(fd, IPPROTO_IP, IP_RECVTOS, &on, sizeof(on)) < 0)
		return -errno;
	set_buffer(fd, SO_RCVBUFFORCE, SO_RCVBUF);
	set_buffer(fd, SO_SNDBUFFORCE, SO_SNDBUF);
	*io = (struct udp_io){
		.fd = fd,
		.recvmmsg = recvmmsg,
		.sendmmsg = sendmmsg,
		.probe = udp_io_probe,
		.set_discovery = udp_io_set_discovery,
	};
	/* Both options are there from Linux 4.18 and 5.0 on. How many segments a message may have shows when one is sent. */
	io->segments_max = 1;
	if (!(off & UDPB_OFFLOAD_UDP_SEGMENT) && getsockopt(fd, IPPROTO_UDP, UDP_SEGMENT, &segment_bytes, &length) == 0)
		io->segments_max = UDP_IO_SEGMENTS_MAX;
	io->gro = setsockopt(fd, IPPROTO_UDP, UDP_GRO, &gro, sizeof(gro)) == 0 && gro;
	return 0;
}

/* Writes one control message where the others end. */
static void add_control(struct msghdr *message, int level, int type, const void *data, size_t bytes)
{
	struct cmsghdr *header = (struct cmsghdr *)((uint8_t *)message->msg_control + message->msg_controllen);

	*header = (struct cmsghdr){ .cmsg_level = level, .cmsg_type = type, .cmsg_len = CMSG_LEN(bytes) };
	memcpy(CMSG_DATA(header), data, bytes);
	message->msg_controllen += CMSG_SPACE(bytes);
}

void udp_io_set_about(struct msghdr *message, union udp_io_control *control, struct udp_io_about about)
{
	uint16_t segment_bytes = (uint16_t)about.segment_bytes;
	int tos = about.tos;

	message->msg_controllen = 0;
	message->msg_control = control->bytes;
	if (segment_bytes)
		add_control(message, IPPROTO_UDP, UDP_SEGMENT, &segment_bytes, sizeof(segment_bytes));
	if (tos)
		add_control(message, IPPROTO_IP, IP_TOS, &tos, sizeof(tos));
}

/* Whether a piece of control data is of this kind and all there: the kernel cuts off what finds no room (MSG_CTRUNC). */
static bool is_whole(const struct msghdr *message, struct cmsghdr *header, int level, int type, size_t bytes)
{
	const uint8_t *end = (const uint8_t *)message->msg_control + message->msg_controllen;

	return header->cmsg_level == level && header->cmsg_type == type && header->cmsg_len >= CMSG_LEN(bytes) &&
	       (size_t)(end - (const uint8_t *)header) >= CMSG_LEN(bytes);
}

struct udp_io_about udp_io_get_about(struct msghdr *message)
{
	struct udp_io_about about = { 0 };

	for (struct cmsghdr *header = CMSG_FIRSTHDR(message); header; header = CMSG_NXTHDR(message, header)) {
		int bytes;

		if (is_whole(message, header, IPPROTO_UDP, UDP_GRO, sizeof(bytes))) {
			memcpy(&bytes, CMSG_DATA(header), sizeof(bytes));
			about.segment_bytes = bytes > 0 ? (uint32_t)bytes : 0;
		} else if (is_whole(message, header, IPPROTO_IP, IP_TOS, sizeof(about.tos))) {
			about.tos = *CMSG_DATA(header); /* one byte, whatever it is on the way out */
		}
	}
	return about;
}

bool udp_io_downgrade(struct udp_io *io, uint32_t segments, int error)
{
	/* EINVAL: too many segments for a Linux before 6.9. EIO: the way out has no checksum offload (before 6.11) or is
	 * transformed (xfrm). */
	if (segments > 1 && (error == -EINVAL || error == -EIO || error == -EOPNOTSUPP)) {
		if (!io->segments_doubted)
			io->segments_doubted = io->segments_max;
		io->segments_max = error == -EINVAL && io->segments_max > UDP_IO_SEGMENTS_LESS ? UDP_IO_SEGMENTS_LESS : 1;
		return true;
	}
	if (io->segments_doubted) {
		io->segments_max = io->segments_doubted;
		io->segments_doubted = 0;
	}
	return false;
}

int udp_io_receive(const struct udp_io *io, struct mmsghdr *messages, unsigned int count)
{
	int got;

	do {
		got = io->recvmmsg(io->fd, messages, count, MSG_DONTWAIT, NULL);
	} while (got < 0 && errno == EINTR);
	return got < 0 ? -errno : got;
}

int udp_io_send(struct udp_io *io, struct mmsghdr *messages, unsigned int count, bool may_fragment)
{
	int sent;

	/* The kernel then cuts to the path MTU it knows, as for IPv6 in IPv4 (RFC 4213, 3.2.2). */
	if (may_fragment)
		(void)io->set_discovery(io->fd, IP_PMTUDISC_DONT);
	do {
		sent = io->sendmmsg(io->fd, messages, count, MSG_DONTWAIT);
	} while (sent < 0 && errno == EINTR);
	if (may_fragment) {
		int error = sent < 0 ? errno : 0;

		(void)io->set_discovery(io->fd, IP_PMTUDISC_DO);
		errno = error;
	}
	if (sent > 0)
		io->segments_doubted = 0;
	return sent < 0 ? -errno : sent;
}

int udp_io_set_discovery(int fd, int how)
{
	return setsockopt(fd, IPPROTO_IP, IP_MTU_DISCOVER, &how, sizeof(how)) < 0 ? -errno : 0;
}

/* The MTU in the queued error that the last send has left; -EMSGSIZE when there is none. What strangers have had queued
 * meanwhile is passed over. */
static int read_mtu(int fd)
{
	for (int i = 0; i < ERRORS_READ_MAX; i++) {
		union {
			uint8_t bytes[CMSG_SPACE(sizeof(struct sock_extended_err) + sizeof(struct sockaddr_in))];
			struct cmsghdr align;
		} control;
		struct msghdr message = { .msg_control = control.bytes, .msg_controllen = sizeof(control) };
		struct sock_extended_err error;

		if (recvmsg(fd, &message, MSG_ERRQUEUE | MSG_DONTWAIT) < 0)
			break;
		for (struct cmsghdr *header = CMSG_FIRSTHDR(&message); header; header = CMSG_NXTHDR(&message, header)) {
			if (header->cmsg_level != IPPROTO_IP || header->cmsg_type != IP_RECVERR)
				continue;
			memcpy(&error, CMSG_DATA(header), sizeof(error));
			if (error.ee_origin == SO_EE_ORIGIN_LOCAL && error.ee_errno == EMSGSIZE && error.ee_info > 0 &&
			    error.ee_info <= UINT16_MAX)
				return (int)error.ee_info;
		}
	}
	return -EMSGSIZE;
}

int udp_io_probe(int fd, struct msghdr *message)
{
	int on = 1, off = 0, result;
	socklen_t length = sizeof(result);

	if (setsockopt(fd, IPPROTO_IP, IP_RECVERR, &on, sizeof(on)) < 0)
		return -errno;
	do {
		result = sendmsg(fd, message, MSG_DONTWAIT) < 0 ? -errno : 0;
	} while (result == -EINTR);
	if (result == -EMSGSIZE)
		result = read_mtu(fd);
	/* This empties the queue as well. What a stranger's ICMP has left as the socket's error would be the next send's. */
	(void)setsockopt(fd, IPPROTO_IP, IP_RECVERR, &off, sizeof(off));
	(void)getsockopt(fd, SOL_SOCKET, SO_ERROR, &off, &length);
	return result;
}
