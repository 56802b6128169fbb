/* udp_io: see udp_io.h. */
#include "udp_io.h"

#include <errno.h>
#include <unistd.h>

#define BUFFER_BYTES (8 << 20) /* the kernel doubles it; holds a burst of 128 full-sized GSO datagrams twice */

/* The privileged form passes net.core.*mem_max; without CAP_NET_ADMIN in the initial namespace the plain one must do. */
static void set_buffer(int fd, int forced, int plain)
{
	int bytes = BUFFER_BYTES;

	if (setsockopt(fd, SOL_SOCKET, forced, &bytes, sizeof(bytes)) < 0)
		(void)setsockopt(fd, SOL_SOCKET, plain, &bytes, sizeof(bytes));
}

int udp_io_open(struct udp_io *io, int fd)
{
	int discover = IP_PMTUDISC_DO;
	int off = 0;

	if (setsockopt(fd, IPPROTO_IP, IP_MTU_DISCOVER, &discover, sizeof(discover)) < 0)
		return -errno;
	/* A queued error keeps the fd ready until somebody reads the error queue: nobody does. */
	if (setsockopt(fd, IPPROTO_IP, IP_RECVERR, &off, sizeof(off)) < 0)
		return -errno;
	set_buffer(fd, SO_RCVBUFFORCE, SO_RCVBUF);
	set_buffer(fd, SO_SNDBUFFORCE, SO_SNDBUF);
	*io = (struct udp_io){ .fd = fd, .recvmmsg = recvmmsg, .sendmmsg = sendmmsg, .path_mtu = udp_io_path_mtu };
	return 0;
}

int udp_io_receive(const struct udp_io *io, struct mmsghdr *messages, unsigned int count)
{
	int got;

	do {
		got = io->recvmmsg(io->fd, messages, count, MSG_DONTWAIT, NULL);
	} while (got < 0 && errno == EINTR);
	return got < 0 ? -errno : got;
}

int udp_io_send(const struct udp_io *io, struct mmsghdr *messages, unsigned int count)
{
	int sent;

	do {
		sent = io->sendmmsg(io->fd, messages, count, MSG_DONTWAIT);
	} while (sent < 0 && errno == EINTR);
	return sent < 0 ? -errno : sent;
}

int udp_io_path_mtu(uint32_t local_be, const struct sockaddr_in *peer)
{
	struct sockaddr_in local = { .sin_family = AF_INET, .sin_addr.s_addr = local_be };
	socklen_t length = sizeof(int);
	int result, mtu = 0;
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	if (fd < 0)
		return -errno;
	if (bind(fd, (struct sockaddr *)&local, sizeof(local)) < 0 ||
	    connect(fd, (const struct sockaddr *)peer, sizeof(*peer)) < 0 ||
	    getsockopt(fd, IPPROTO_IP, IP_MTU, &mtu, &length) < 0)
		result = -errno;
	else
		result = mtu;
	close(fd);
	return result;
}
