/* guard: a thread that can make the system calls of a queue's turn, and no others.
 *
 * Owns the seccomp filter, the thread that runs under it and the count of what was refused. Must not know queues.
 *
 * A filter is for life and belongs to a thread, and the interpreter's own threads make all kinds of calls. So the work
 * runs in a thread made for it, and the caller waits: nice value, processor and name are the caller's, inherited.
 */
#ifndef GUARD_H
#define GUARD_H

#include <stdatomic.h>
#include <stdint.h>

#define GUARD_NONE 0
#define GUARD_ON 1

/* Runs `work(about)` and returns what it returns. `state` is meanwhile GUARD_ON, or the -errno of what could not be done:
 * then the work runs without a filter. GUARD_NONE afterwards. */
int guard_run(int (*work)(void *about), void *about, _Atomic int *state);

/* How many calls were refused in this process since it began; the number of the last one in `last_call`. */
uint64_t guard_refused(int *last_call);

#endif
