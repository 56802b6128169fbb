/* rights: see rights.h. capabilities(7): they belong to a thread, and those that it starts later inherit them. What root
 * starts gets no more than that back (no_new_privs). */
#include "rights.h"

#include <errno.h>
#include <linux/capability.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

int rights_limit(uint64_t capabilities)
{
	struct __user_cap_header_struct header = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct held[_LINUX_CAPABILITY_U32S_3];
	uint32_t surplus = 0;

	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 || syscall(SYS_capget, &header, held) < 0)
		return -errno;
	/* Who may not shorten this list has no_new_privs all the same. It ends where the kernel knows no more of them. */
	for (unsigned long it = 0; it < 64 && prctl(PR_CAPBSET_READ, it, 0, 0, 0) >= 0; it++)
		if (!(capabilities >> it & 1))
			(void)prctl(PR_CAPBSET_DROP, it, 0, 0, 0);
	for (int half = 0; half < _LINUX_CAPABILITY_U32S_3; half++) {
		uint32_t kept = (uint32_t)(capabilities >> (32 * half));

		surplus |= (held[half].permitted | held[half].inheritable) & ~kept;
		held[half].permitted &= kept;
		held[half].effective &= kept;
		held[half].inheritable &= kept;
	}
	/* Whoever starts us with no more than that may forbid the call. */
	return surplus && syscall(SYS_capset, &header, held) < 0 ? -errno : 0;
}
