/* udp_io: see udp_io.h. */
#include "udp_io.h"

#include <errno.h>
#include <linux/errqueue.h>
#include <linux/filter.h>
#include <linux/sock_diag.h>
#include <netinet/udp.h>
#include <string.h>
#include <unistd.h>

#include "udpb.h"

#define BUFFER_BYTES (8 << 20) /* the kernel doubles it; holds a burst of 128 full-sized GSO datagrams twice */
#define ERRORS_READ_MAX 16
#define WITHOUT_DF_TRIES 4

#define BESIDE_ADDRESS 0x7f010000 /* 127.1.0.0 */
#define BESIDE_TRIES 8 /* the process before us may still hold one */

/* The privileged form passes net.core.*mem_max; without CAP_NET_ADMIN in the initial namespace the plain one must do. */
static void set_buffer(int fd, int forced, int plain, int bytes)
{
	if (setsockopt(fd, SOL_SOCKET, forced, &bytes, sizeof(bytes)) < 0)
		(void)setsockopt(fd, SOL_SOCKET, plain, &bytes, sizeof(bytes));
}

/* What SIOCOUTQ says too; this way no thread that moves packets needs ioctl, which can do anything. */
static int queued(int fd)
{
	uint32_t memory[SK_MEMINFO_VARS] = { 0 };
	socklen_t length = sizeof(memory);

	return getsockopt(fd, SOL_SOCKET, SO_MEMINFO, memory, &length) < 0 ? -errno : (int)memory[SK_MEMINFO_WMEM_ALLOC];
}

/* What a socket of either kind needs. A queued error keeps an fd ready until somebody reads the error queue: nobody does. */
static int set_up(struct udp_io *io, int fd, uint32_t off, int errors, int receive_bytes, int send_bytes)
{
	int on = 1, gro = !(off & UDPB_OFFLOAD_UDP_GRO), segment_bytes = 0, buffer_bytes = 0;
	socklen_t length = sizeof(int);
	int error = udp_io_set_discovery(fd, IP_PMTUDISC_DO);

	if (error)
		return error;
	if (setsockopt(fd, IPPROTO_IP, IP_RECVERR, &errors, sizeof(errors)) < 0)
		return -errno;
	set_buffer(fd, SO_RCVBUFFORCE, SO_RCVBUF, receive_bytes);
	set_buffer(fd, SO_SNDBUFFORCE, SO_SNDBUF, send_bytes);
	if (getsockopt(fd, SOL_SOCKET, SO_SNDBUF, &buffer_bytes, &length) < 0)
		return -errno;
	if (setsockopt(fd, IPPROTO_IP, IP_RECVTOS, &on, sizeof(on)) < 0)
		return -errno;
	*io = (struct udp_io){ .fd = fd,
			       .buffer_bytes = (uint32_t)buffer_bytes,
			       .recvmmsg = recvmmsg,
			       .sendmmsg = sendmmsg,
			       .probe = udp_io_probe,
			       .set_discovery = udp_io_set_discovery,
			       .queued = queued,
			       .beside = udp_io_open_beside,
			       .errors = errors };
	/* Both options are there from Linux 4.18 and 5.0 on. How many segments a message may have shows when one is sent. */
	io->segments_max = 1;
	if (!(off & UDPB_OFFLOAD_UDP_SEGMENT) && getsockopt(fd, IPPROTO_UDP, UDP_SEGMENT, &segment_bytes, &length) == 0)
		io->segments_max = UDP_IO_SEGMENTS_MAX;
	io->gro = setsockopt(fd, IPPROTO_UDP, UDP_GRO, &gro, sizeof(gro)) == 0 && gro;
	return 0;
}

/* Has the kernel drop whatever comes. What nobody reads would stay for ever, and a buffer that is full of it has no room for
 * the error that tells a path's MTU. Errors of our own pass no filter. */
static int take_nothing(int fd)
{
	struct sock_filter nothing = BPF_STMT(BPF_RET | BPF_K, 0);
	struct sock_fprog program = { .len = 1, .filter = &nothing };

	return setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof(program)) < 0 ? -errno : 0;
}

int udp_io_open(struct udp_io *io, int fd, uint32_t off)
{
	struct sockaddr_in bound = { 0 };
	socklen_t length = sizeof(bound);
	int error = set_up(io, fd, off, 0, BUFFER_BYTES, BUFFER_BYTES);

	if (error)
		return error;
	if (getsockname(fd, (struct sockaddr *)&bound, &length) < 0)
		return -errno;
	io->bound_address_be = bound.sin_addr.s_addr;
	io->bound_port_be = bound.sin_port;
	return 0;
}

int udp_io_open_sender(struct udp_io *io, int fd, uint32_t off)
{
	int error = take_nothing(fd);

	return error ? error : udp_io_open(io, fd, off);
}

/* Binds to the port of `model` on an address that nobody sends to; loopback need not be up. */
static int bind_beside(int fd, const struct udp_io *model)
{
	struct sockaddr_in address = { .sin_family = AF_INET, .sin_port = model->bound_port_be };
	int on = 1;

	if (setsockopt(fd, IPPROTO_IP, IP_FREEBIND, &on, sizeof(on)) < 0)
		return -errno;
	for (uint32_t i = 0; i < BESIDE_TRIES; i++) {
		address.sin_addr.s_addr = htonl(BESIDE_ADDRESS + (i << 16) + ((uint32_t)fd & 0xffff));
		if (bind(fd, (struct sockaddr *)&address, sizeof(address)) == 0)
			return 0;
	}
	return -errno;
}

int udp_io_open_beside(struct udp_io *io, const struct udp_io *model, uint32_t buffer_bytes)
{
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	int error;

	if (fd < 0)
		return -errno;
	/* Errors of a path are looked up by the address that the datagram left from: only a qdisc's come here. */
	error = set_up(io, fd, UDPB_OFFLOAD_UDP_GRO, 1, 0, (int)buffer_bytes);
	if (!error)
		error = take_nothing(fd); /* a program of this host can send there */
	if (!error)
		error = bind_beside(fd, model);
	if (error) {
		close(fd);
		return error;
	}
	io->source_be = model->bound_address_be;
	io->segments_max = model->segments_max;
	return 0;
}

uint32_t udp_io_queued(const struct udp_io *io)
{
	int bytes = io->queued(io->fd);

	return bytes > 0 ? (uint32_t)bytes : 0;
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
	struct in_pktinfo source = { .ipi_spec_dst.s_addr = about.source_be };
	int tos = about.tos;

	message->msg_controllen = 0;
	message->msg_control = control->bytes;
	if (segment_bytes)
		add_control(message, IPPROTO_UDP, UDP_SEGMENT, &segment_bytes, sizeof(segment_bytes));
	if (tos)
		add_control(message, IPPROTO_IP, IP_TOS, &tos, sizeof(tos));
	if (about.source_be)
		add_control(message, IPPROTO_IP, IP_PKTINFO, &source, sizeof(source));
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

bool udp_io_refuses_segments(int error)
{
	/* EIO: the way out has no checksum offload (before 6.11) or is transformed (xfrm). */
	return error == -EINVAL || error == -EIO || error == -EOPNOTSUPP;
}

bool udp_io_downgrade(struct udp_io *io, uint32_t segments, int error)
{
	/* EINVAL: too many segments for a Linux before 6.9. */
	if (error == -EINVAL && segments > UDP_IO_SEGMENTS_LESS) {
		io->segments_doubted = io->segments_max;
		io->segments_max = UDP_IO_SEGMENTS_LESS;
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

/* Nobody waits for a socket beside others: where it is full, it drops, as the qdisc behind it does. */
static int refusal(const struct udp_io *io, int result)
{
	return result == -EAGAIN && io->source_be ? -ENOBUFS : result;
}

static int send_now(const struct udp_io *io, struct mmsghdr *messages, unsigned int count)
{
	int sent;

	do {
		sent = io->sendmmsg(io->fd, messages, count, MSG_DONTWAIT);
	} while (sent < 0 && errno == EINTR);
	return sent < 0 ? -errno : sent;
}

/* The kernel then cuts to the path MTU it knows, as for IPv6 in IPv4 (RFC 4213, 3.2.2). Where it finds a datagram too long
 * all the same, another queue's thread has switched DF on again, on an fd that both send from. */
static int send_without_df(const struct udp_io *io, struct mmsghdr *messages, unsigned int count)
{
	int sent = -EMSGSIZE;

	for (int i = 0; i < WITHOUT_DF_TRIES && sent == -EMSGSIZE; i++) {
		(void)io->set_discovery(io->fd, IP_PMTUDISC_DONT);
		sent = send_now(io, messages, count);
		(void)io->set_discovery(io->fd, IP_PMTUDISC_DO);
	}
	return sent;
}

int udp_io_send(struct udp_io *io, struct mmsghdr *messages, unsigned int count, bool may_fragment)
{
	int sent = may_fragment ? send_without_df(io, messages, count) : send_now(io, messages, count);

	if (sent > 0)
		io->segments_doubted = 0;
	return refusal(io, sent);
}

int udp_io_ask(const struct udp_io *io, struct msghdr *message)
{
	return refusal(io, io->probe(io, message));
}

int udp_io_set_discovery(int fd, int how)
{
	return setsockopt(fd, IPPROTO_IP, IP_MTU_DISCOVER, &how, sizeof(how)) < 0 ? -errno : 0;
}

/* The MTU in the queued error that the last send, to this address, has left; -EMSGSIZE when there is none. What strangers
 * have had queued meanwhile is passed over, and what another thread's datagram to another address has. */
static int read_mtu(int fd, const struct sockaddr_in *address)
{
	for (int i = 0; i < ERRORS_READ_MAX; i++) {
		union {
			uint8_t bytes[CMSG_SPACE(sizeof(struct sock_extended_err) + sizeof(struct sockaddr_in))];
			struct cmsghdr align;
		} control;
		struct sockaddr_in refused = { 0 };
		struct mmsghdr read = { .msg_hdr = { .msg_name = &refused,
						     .msg_namelen = sizeof(refused),
						     .msg_control = control.bytes,
						     .msg_controllen = sizeof(control) } };
		struct msghdr *message = &read.msg_hdr;
		struct sock_extended_err error;

		if (recvmmsg(fd, &read, 1, MSG_ERRQUEUE | MSG_DONTWAIT, NULL) < 0)
			break;
		for (struct cmsghdr *header = CMSG_FIRSTHDR(message); header; header = CMSG_NXTHDR(message, header)) {
			if (header->cmsg_level != IPPROTO_IP || header->cmsg_type != IP_RECVERR)
				continue;
			memcpy(&error, CMSG_DATA(header), sizeof(error));
			if (error.ee_origin == SO_EE_ORIGIN_LOCAL && error.ee_errno == EMSGSIZE && error.ee_info > 0 &&
			    error.ee_info <= UINT16_MAX && refused.sin_addr.s_addr == address->sin_addr.s_addr)
				return (int)error.ee_info;
		}
	}
	return -EMSGSIZE;
}

int udp_io_probe(const struct udp_io *io, struct msghdr *message)
{
	struct mmsghdr sent = { .msg_hdr = *message };
	int on = 1, off = 0, usual = io->errors, result;
	socklen_t length = sizeof(int);

	/* To switch it off empties the queue. Where it is on at all times, older errors may be there. */
	if ((usual && setsockopt(io->fd, IPPROTO_IP, IP_RECVERR, &off, sizeof(off)) < 0) ||
	    setsockopt(io->fd, IPPROTO_IP, IP_RECVERR, &on, sizeof(on)) < 0)
		return -errno;
	do {
		result = sendmmsg(io->fd, &sent, 1, MSG_DONTWAIT) < 0 ? -errno : 0;
	} while (result == -EINTR);
	if (result == -EMSGSIZE)
		result = read_mtu(io->fd, message->msg_name);
	/* Not as it was found: another queue's thread may be asking from the same fd, and would have it stay on. What a
	 * stranger's ICMP has left as the socket's error would be the next send's. */
	(void)setsockopt(io->fd, IPPROTO_IP, IP_RECVERR, &usual, sizeof(usual));
	(void)getsockopt(io->fd, SOL_SOCKET, SO_ERROR, &off, &length);
	return result;
}
