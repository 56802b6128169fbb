/* gap: a steady stream of datagrams, and the longest pause in it.
 *
 *   gap receive ADDRESS PORT SECONDS [PER_S]          prints what came, what was lost, the pause in nanoseconds, how many
 *                                                     came late (behind a later one), and the nanoseconds from the
 *                                                     first to the last, after that time or when SIGTERM comes
 *   gap send SOURCE ADDRESS PORT SECONDS [PER_S]      sends so many datagrams a second, 5000 where nothing is said; fewer
 *                                                     where it is not given the processor for that
 *
 * Both ends run on one machine and share its clock, so each datagram carries the time it left. The pause is the longest
 * time that one was under way, or the length of the longest stretch that never came, whichever is longer: a sender
 * that was itself held up does not count. Must not know what happens to the way meanwhile.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#define PER_S 5000L
#define SECOND_NS 1000000000L
#define BUFFER_BYTES (8 << 20) /* so that a receiver that does not run for a while loses nothing */

struct datagram {
	int64_t number, sent_ns;
};

static void fail(const char *what)
{
	fprintf(stderr, "gap: %s: %s\n", what, strerror(errno));
	exit(1);
}

static int64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_REALTIME, &t); /* the clock of SO_TIMESTAMPNS */
	return t.tv_sec * SECOND_NS + t.tv_nsec;
}

static int bound(const char *address, const char *port)
{
	struct sockaddr_in at = { .sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(port)) };
	int fd = socket(AF_INET, SOCK_DGRAM, 0);

	if (inet_pton(AF_INET, address, &at.sin_addr) != 1 || bind(fd, (struct sockaddr *)&at, sizeof(at)))
		fail(address);
	return fd;
}

/* When the kernel took the datagram in: the receiver's own sleep is not part of the way. */
static int64_t arrival_ns(struct msghdr *message)
{
	struct cmsghdr *c = CMSG_FIRSTHDR(message);
	struct timespec t;

	if (!c || c->cmsg_type != SCM_TIMESTAMPNS)
		return now_ns();
	memcpy(&t, CMSG_DATA(c), sizeof(t));
	return t.tv_sec * SECOND_NS + t.tv_nsec;
}

static volatile sig_atomic_t stopped;

static void stop(int number)
{
	(void)number;
	stopped = 1;
}

static void receive(int fd, int64_t end_ns, int64_t interval_ns)
{
	int64_t came = 0, lost = 0, late = 0, pause_ns = 0, last = -1, first_ns = 0, last_ns = 0;
	struct timeval patience = { .tv_usec = 100000 };
	int one = 1, bytes = BUFFER_BYTES;

	if (setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &bytes, sizeof(bytes)))
		setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &bytes, sizeof(bytes));
	setsockopt(fd, SOL_SOCKET, SO_TIMESTAMPNS, &one, sizeof(one));
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
	signal(SIGTERM, stop);
	while (!stopped && now_ns() < end_ns) {
		struct datagram d;
		char control[64];
		struct iovec iov = { &d, sizeof(d) };
		struct msghdr message = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control,
					  .msg_controllen = sizeof(control) };

		if (recvmsg(fd, &message, 0) != sizeof(d))
			continue;
		if (d.number <= last) { /* it was counted as lost when a later one came */
			late++;
			lost--;
			continue;
		}
		last_ns = arrival_ns(&message);
		first_ns = came ? first_ns : last_ns;
		int64_t way_ns = last_ns - d.sent_ns;
		int64_t missing = last < 0 ? 0 : d.number - last - 1; /* it may have begun before us */

		came++;
		lost += missing;
		pause_ns = way_ns > pause_ns ? way_ns : pause_ns;
		pause_ns = missing * interval_ns > pause_ns ? missing * interval_ns : pause_ns;
		last = d.number;
	}
	printf("came %ld lost %ld pause_ns %ld late %ld span_ns %ld\n", (long)came, (long)lost, (long)pause_ns, (long)late,
	       (long)(last_ns - first_ns));
}

static void send_all(int fd, const char *address, const char *port, int64_t end_ns, int64_t interval_ns)
{
	struct sockaddr_in to = { .sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(port)) };
	int64_t begin_ns = now_ns();

	inet_pton(AF_INET, address, &to.sin_addr);
	prctl(PR_SET_TIMERSLACK, 1);
	for (struct datagram d = { 0 }; now_ns() < end_ns; d.number++) {
		int64_t due_ns = begin_ns + d.number * interval_ns;
		struct timespec due = { due_ns / SECOND_NS, due_ns % SECOND_NS };

		/* The kernel arms a timer and takes the core away even for a time that is past: tens of microseconds. */
		if (due_ns > now_ns())
			clock_nanosleep(CLOCK_REALTIME, TIMER_ABSTIME, &due, NULL);
		d.sent_ns = now_ns();
		sendto(fd, &d, sizeof(d), 0, (struct sockaddr *)&to, sizeof(to));
	}
}

static int64_t interval_ns(const char *per_s)
{
	return SECOND_NS / (per_s ? atol(per_s) : PER_S);
}

int main(int argc, char **argv)
{
	if (argc >= 5 && argc <= 6 && !strcmp(argv[1], "receive"))
		receive(bound(argv[2], argv[3]), now_ns() + (int64_t)(atof(argv[4]) * SECOND_NS), interval_ns(argv[5]));
	else if (argc >= 6 && argc <= 7 && !strcmp(argv[1], "send"))
		send_all(bound(argv[2], "0"), argv[3], argv[4], now_ns() + (int64_t)(atof(argv[5]) * SECOND_NS),
			 interval_ns(argv[6]));
	else
		return fprintf(stderr, "usage: gap receive ADDRESS PORT SECONDS [PER_S]\n"
				       "       gap send SOURCE ADDRESS PORT SECONDS [PER_S]\n"), 2;
	return 0;
}
