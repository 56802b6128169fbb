/* netns: a network namespace of the test's own, with devices in it.
 *
 * Owns what needs root: the namespace, which goes away with the process, TUN and TAP devices, their addresses and their
 * deletion. Where that is not permitted the program says so and ends well, unless UDPB_NO_SKIP is in the environment. It
 * must not know what is being tested.
 */
#ifndef NETNS_H
#define NETNS_H

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <linux/rtnetlink.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "check.h"

/* One ioctl on a device by its name. */
static inline int netns_request(const char *device, unsigned long request, struct ifreq *data)
{
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0), result;

	strncpy(data->ifr_name, device, IFNAMSIZ - 1);
	result = ioctl(fd, request, data) < 0 ? -errno : 0;
	close(fd);
	return result;
}

static inline void netns_set_up(const char *device, bool up)
{
	struct ifreq request = {.ifr_flags = (short)(up ? IFF_UP : 0)};

	CHECK(netns_request(device, SIOCSIFFLAGS, &request) == 0);
}

/* Brings a device up with an address (host order). */
static inline void netns_address(const char *device, uint32_t address, uint32_t mask)
{
	struct ifreq request = {0};
	struct sockaddr_in in = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(address)};

	memcpy(&request.ifr_addr, &in, sizeof(in));
	CHECK(netns_request(device, SIOCSIFADDR, &request) == 0);
	in.sin_addr.s_addr = htonl(mask);
	memcpy(&request.ifr_netmask, &in, sizeof(in));
	CHECK(netns_request(device, SIOCSIFNETMASK, &request) == 0);
	netns_set_up(device, true);
}

/* A non-blocking fd of a TUN or TAP device, made if it does not exist; or -errno. `flags`: IFF_TUN or IFF_TAP, and more. */
static inline int netns_tun(const char *device, short flags)
{
	struct ifreq request = {.ifr_flags = (short)(flags | IFF_NO_PI)};
	int fd = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);

	if (fd < 0)
		return -errno;
	strncpy(request.ifr_name, device, IFNAMSIZ - 1);
	if (ioctl(fd, TUNSETIFF, &request) < 0) {
		close(fd);
		return -errno;
	}
	return fd;
}

/* Deletes a device as `ip link delete` does. Returns 0 or -errno. */
static inline int netns_delete(const char *device)
{
	struct {
		struct nlmsghdr header;
		struct ifinfomsg link;
	} request = {.header = {.nlmsg_len = sizeof(request),
				.nlmsg_type = RTM_DELLINK,
				.nlmsg_flags = NLM_F_REQUEST | NLM_F_ACK}};
	struct {
		struct nlmsghdr header;
		struct nlmsgerr error;
	} answer = {0};
	struct ifreq index = {0};
	int fd, error = netns_request(device, SIOCGIFINDEX, &index);

	if (error)
		return error;
	request.link.ifi_index = index.ifr_ifindex;
	fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
	if (send(fd, &request, sizeof(request), 0) < 0 || recv(fd, &answer, sizeof(answer), 0) < 0)
		error = -errno;
	close(fd);
	return error ? error : answer.error.error;
}

/* New devices then have nothing to say of their own accord. Where there is no IPv6 there is no such file. */
static inline void netns_without_ipv6(void)
{
	int fd = open("/proc/sys/net/ipv6/conf/default/disable_ipv6", O_WRONLY | O_CLOEXEC);

	if (fd >= 0 && CHECK(write(fd, "1", 1) == 1))
		close(fd);
}

/* Moves this thread into a namespace of its own, with loopback up and IPv4 only. Call before threads are started. */
static inline void netns_enter_or_skip(void)
{
	int probe = -EPERM;

	if (unshare(CLONE_NEWNET) == 0 || unshare(CLONE_NEWUSER | CLONE_NEWNET) == 0)
		probe = netns_tun("probe0", IFF_TUN);
	if (probe < 0) {
		printf("needs root and /dev/net/tun: skipped, 0 passed, 0 failed\n");
		exit(getenv("UDPB_NO_SKIP") ? 1 : 0);
	}
	close(probe);
	netns_without_ipv6();
	netns_set_up("lo", true);
}

#endif
