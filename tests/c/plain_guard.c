/* guard: what may be called, what not, and what becomes of a process whose thread tries. Without sanitizers: their own
 * runtime makes calls in every thread. */
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#include "check.h"
#include "guard.h"

static _Atomic int state;

static int confined(void *about)
{
	(void)about;
	return atomic_load(&state);
}

/* Everything that turning a queue comes to, on an fd that is none: the kernel has looked at the call, and says EBADF. */
static int allowed(void *about)
{
	struct mmsghdr message = { 0 };
	struct iovec iov = { 0 };
	struct timespec now = { 0 };
	struct pollfd poll = { .fd = -1 };
	int value = 0, fd, errors = 0;
	socklen_t length = sizeof(value);

	(void)about;
	errors += syscall(SYS_read, -1, &value, 1) == -1 && errno == EBADF;
	errors += syscall(SYS_write, -1, &value, 1) == -1 && errno == EBADF;
	errors += writev(-1, &iov, 1) == -1 && errno == EBADF;
	errors += recvmmsg(-1, &message, 1, MSG_DONTWAIT, NULL) == -1 && errno == EBADF;
	errors += sendmmsg(-1, &message, 1, MSG_DONTWAIT) == -1 && errno == EBADF;
	errors += getsockopt(-1, SOL_SOCKET, SO_ERROR, &value, &length) == -1 && errno == EBADF;
	errors += setsockopt(-1, SOL_SOCKET, SO_SNDBUF, &value, length) == -1 && errno == EBADF;
	errors += bind(-1, NULL, 0) == -1 && errno == EBADF;
	errors += close(-1) == -1 && errno == EBADF;
	errors += ppoll(&poll, 1, &now, NULL) == 0;
	errors += sched_yield() == 0;
	errors += syscall(SYS_clock_gettime, CLOCK_MONOTONIC, &now) == 0;
	fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	errors += fd >= 0 && close(fd) == 0;
	return errors;
}

static int refused(void *about)
{
	int errors = 0;

	(void)about;
	errors += socket(AF_INET, SOCK_STREAM, 0) == -1 && errno == ENOSYS;
	errors += socket(AF_INET, SOCK_RAW, 1) == -1 && errno == ENOSYS;
	errors += socket(AF_NETLINK, SOCK_DGRAM, 0) == -1 && errno == ENOSYS;
	errors += syscall(SYS_openat, -100, "/etc/passwd", 0) == -1 && errno == ENOSYS;
	errors += syscall(SYS_execve, "/bin/true", NULL, NULL) == -1 && errno == ENOSYS;
	errors += syscall(SYS_kill, 0, SIGTERM) == -1 && errno == ENOSYS;
	errors += epoll_create1(0) == -1 && errno == ENOSYS;
	return errors;
}

static void *in_signal_free_thread(void *about)
{
	sigset_t all;
	int *result = about;

	sigfillset(&all); /* as the threads of the daemon have it */
	pthread_sigmask(SIG_BLOCK, &all, NULL);
	*result = guard_run(refused, NULL, &state);
	return NULL;
}

static void test_runs_under_a_filter(void)
{
	CHECK(guard_run(confined, NULL, &state) == GUARD_ON);
	CHECK(state == GUARD_NONE);
}

static void test_what_a_turn_needs_is_allowed(void)
{
	int last;

	CHECK(guard_run(allowed, NULL, &state) == 13);
	CHECK(guard_refused(&last) == 0);
}

static void test_anything_else_fails_and_is_counted(void)
{
	pthread_t thread;
	int last, result = 0;
	uint64_t before = guard_refused(&last);

	CHECK(guard_run(refused, NULL, &state) == 7);
	CHECK(guard_refused(&last) == before + 7 && last == SYS_epoll_create1);
	CHECK(pthread_create(&thread, NULL, in_signal_free_thread, &result) == 0);
	pthread_join(thread, NULL);
	CHECK(result == 7 && guard_refused(&last) == before + 14);
}

/* The handler stays for the life of the process, and must not touch a thread that was not refused anything. */
static void test_a_signal_that_somebody_sends_is_nothing(void)
{
	int last;
	uint64_t before = guard_refused(&last);

	CHECK(raise(SIGSYS) == 0);
	CHECK(guard_refused(&last) == before);
}

static void test_the_caller_has_no_filter(void)
{
	int last, fd = epoll_create1(0);
	uint64_t before = guard_refused(&last);

	CHECK(fd >= 0 && close(fd) == 0 && guard_refused(&last) == before);
}

/* Somebody else's handler stays, and the work is done all the same. */
static void test_without_a_handler_there_is_no_filter(void)
{
	struct sigaction ours, theirs = { .sa_handler = SIG_IGN };

	CHECK(sigaction(SIGSYS, &theirs, &ours) == 0);
	CHECK(guard_run(confined, NULL, &state) == -EBUSY);
	CHECK(sigaction(SIGSYS, &ours, NULL) == 0);
	CHECK(guard_run(confined, NULL, &state) == GUARD_ON);
}

int main(void)
{
	test_runs_under_a_filter();
	test_what_a_turn_needs_is_allowed();
	test_anything_else_fails_and_is_counted();
	test_a_signal_that_somebody_sends_is_nothing();
	test_the_caller_has_no_filter();
	test_without_a_handler_there_is_no_filter();
	return check_done();
}
