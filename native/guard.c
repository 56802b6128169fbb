/* guard: see guard.h.
 *
 * Theory of operation. What the work may call is ALLOWED. Two calls are the library's, as a thread ends, and matter to
 * nobody: they fail and nothing is said. Anything else is a surprise: a signal is raised in place of the call, whose
 * handler counts it and lets the call fail with ENOSYS. To kill the process instead would be safer against one who has
 * taken the thread over; but he shares its memory with threads that have no filter, so the filter is a hurdle for him
 * and no wall, while a library that makes another call one day would take the network down with it. `status` says so.
 *
 * The filter looks at no argument but those of socket(): the kernel remembers of each number that it passes whatever its
 * arguments, and then does not run the filter at all (Linux 5.11).
 */
#include "guard.h"

#include <errno.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <signal.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

#ifndef SYS_SECCOMP
#define SYS_SECCOMP 1 /* asm-generic/siginfo.h */
#endif

#define STACK_BYTES (1 << 19) /* more than the least of aarch64; only what is touched costs memory */

#if defined(__x86_64__)
#define ARCHITECTURE AUDIT_ARCH_X86_64
#define RESULT(context) ((context)->uc_mcontext.gregs[REG_RAX])
#elif defined(__aarch64__)
#define ARCHITECTURE AUDIT_ARCH_AARCH64
#define RESULT(context) ((context)->uc_mcontext.regs[0])
#endif

/* A signal handler has nowhere else to look; there is one process, and one handler for it. */
static _Atomic uint64_t refused;
static _Atomic int last_refused;

#ifdef ARCHITECTURE

#define LOAD(field) BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, field))
#define LOW_HALF(argument) LOAD(args[argument]) /* both processors are little-endian */
#define ANSWER(what) BPF_STMT(BPF_RET | BPF_K, (what))
#define IS(value, then, otherwise) BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (value), (then), (otherwise))
#define ON(call, what) IS((call), 0, 1), ANSWER(what)
#define ALLOW(call) ON(call, SECCOMP_RET_ALLOW)
#define REFUSE ANSWER(SECCOMP_RET_TRAP)
#define SOCKET_TYPE 0xf /* without SOCK_CLOEXEC and SOCK_NONBLOCK */

static struct sock_filter instructions[] = {
	LOAD(arch),
	IS(ARCHITECTURE, 1, 0),
	REFUSE,
	LOAD(nr),
	/* packets, what is most frequent first */
	ALLOW(__NR_read),
	ALLOW(__NR_write),
	ALLOW(__NR_recvmmsg),
	ALLOW(__NR_sendmmsg),
	ALLOW(__NR_sched_yield),
	ALLOW(__NR_ppoll),
	ALLOW(__NR_writev),
	ALLOW(__NR_clock_gettime), /* where the clock cannot be read without the kernel */
	/* how full a socket is, what a path takes, sockets for slow peers */
	ALLOW(__NR_getsockopt),
	ALLOW(__NR_setsockopt),
	ALLOW(__NR_bind),
	ALLOW(__NR_close),
	/* the end of the thread, and of the handler below */
	ALLOW(__NR_exit),
	ALLOW(__NR_rt_sigreturn),
	ON(__NR_rt_sigprocmask, SECCOMP_RET_ERRNO | ENOSYS), /* all signals are blocked already */
	ON(__NR_madvise, SECCOMP_RET_ERRNO | ENOSYS),        /* the stack is given back by who waits for the thread */
	IS(__NR_socket, 1, 0),
	REFUSE,
	LOW_HALF(0),
	IS(AF_INET, 0, 4),
	LOW_HALF(1),
	BPF_STMT(BPF_ALU | BPF_AND | BPF_K, SOCKET_TYPE),
	ON(SOCK_DGRAM, SECCOMP_RET_ALLOW),
	REFUSE,
};

static void on_refusal(int number, siginfo_t *info, void *context)
{
	(void)number;
	if (info->si_code != SYS_SECCOMP) /* somebody has sent it: then this thread was at anything else */
		return;
	atomic_store(&last_refused, info->si_syscall);
	atomic_fetch_add(&refused, 1);
	RESULT((ucontext_t *)context) = (__typeof__(RESULT((ucontext_t *)context)))-ENOSYS;
}

/* Takes SIGSYS for the process; not from somebody who has it already. Several threads may do so at once. */
static int handle_refusals(void)
{
	struct sigaction ours = { .sa_sigaction = on_refusal, .sa_flags = SA_SIGINFO }, before;

	if (sigaction(SIGSYS, NULL, &before) < 0)
		return -errno;
	if (before.sa_sigaction == on_refusal)
		return 0;
	if (before.sa_handler != SIG_DFL)
		return -EBUSY;
	return sigaction(SIGSYS, &ours, NULL) < 0 ? -errno : 0;
}

/* For the calling thread and for good. A blocked SIGSYS would end the process instead of being handled. */
static int install(void)
{
	struct sock_fprog program = { .len = sizeof(instructions) / sizeof(instructions[0]), .filter = instructions };
	sigset_t sigsys;
	int error = handle_refusals();

	if (error)
		return error;
	sigemptyset(&sigsys);
	sigaddset(&sigsys, SIGSYS);
	error = pthread_sigmask(SIG_UNBLOCK, &sigsys, NULL);
	if (error)
		return -error;
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
		return -errno;
	/* Before Linux 5.16 a filter also switches parts of speculation off, which the interpreter next door has on. */
	if (syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_SPEC_ALLOW, &program) == 0)
		return 0;
	return prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) < 0 ? -errno : 0;
}

#else

static int install(void)
{
	return -ENOSYS;
}

#endif

struct job {
	int (*work)(void *about);
	void *about;
	_Atomic int *state;
	int result;
};

static void *run_confined(void *it)
{
	struct job *job = it;
	int error = install();

	atomic_store(job->state, error ? error : GUARD_ON);
	job->result = job->work(job->about);
	return NULL;
}

int guard_run(int (*work)(void *about), void *about, _Atomic int *state)
{
	struct job job = { .work = work, .about = about, .state = state };
	pthread_attr_t attributes;
	pthread_t thread;
	int error = pthread_attr_init(&attributes);

	if (!error) {
		(void)pthread_attr_setstacksize(&attributes, STACK_BYTES);
		error = pthread_create(&thread, &attributes, run_confined, &job);
		pthread_attr_destroy(&attributes);
	}
	if (error) {
		atomic_store(state, -error);
		job.result = work(about);
	} else {
		pthread_join(thread, NULL);
	}
	atomic_store(state, GUARD_NONE);
	return job.result;
}

uint64_t guard_refused(int *last_call)
{
	*last_call = atomic_load(&last_refused);
	return atomic_load(&refused);
}
