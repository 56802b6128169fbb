/* steer: see steer.h.
 *
 * The hash is over the addresses, and for TCP over the ports as well. Not for UDP: the fragments of a datagram but the
 * first have no ports, and must not overtake or fall behind the rest of their flow. Nor for fragments of TCP, which are
 * rare (TCP mostly sets DF): they stay together. The kernel takes the result modulo the number of queues
 * (linux/drivers/net/tun.c, tun_ebpf_select_queue).
 */
#include "steer.h"

#include <errno.h>
#include <linux/bpf.h>
#include <linux/if_tun.h>
#include <stdint.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>


/* One instruction each; the names are those of the kernel's own macros (linux/filter.h), which are not for users. */
#define MOVE(dst, src) { .code = BPF_ALU64 | BPF_MOV | BPF_X, .dst_reg = dst, .src_reg = src }
#define OPERATE(op, dst, src) { .code = BPF_ALU64 | op | BPF_X, .dst_reg = dst, .src_reg = src }
#define OPERATE_WITH(op, dst, value) { .code = BPF_ALU64 | op | BPF_K, .dst_reg = dst, .imm = value }
#define LOAD(size, at) { .code = BPF_LD | BPF_ABS | size, .imm = at }
#define SKIP_UNLESS(dst, value, count) { .code = BPF_JMP | BPF_JNE | BPF_K, .dst_reg = dst, .off = count, .imm = value }
#define SKIP(count) { .code = BPF_JMP | BPF_JA, .off = count }
#define EXIT { .code = BPF_JMP | BPF_EXIT }

/* R7 gathers the hash. Loads find the packet through R6 and leave their result in R0. A load beyond the
 * end of the packet ends the program with 0: a runt goes to the first queue. */
static const struct bpf_insn program[] = {
	MOVE(BPF_REG_6, BPF_REG_1),
	LOAD(BPF_B, 0),
	OPERATE_WITH(BPF_RSH, BPF_REG_0, 4),
	SKIP_UNLESS(BPF_REG_0, 6, 15),
	/* IPv6: the last words of both addresses, the next header */
	LOAD(BPF_W, 16),
	MOVE(BPF_REG_7, BPF_REG_0),
	LOAD(BPF_W, 20),
	OPERATE(BPF_XOR, BPF_REG_7, BPF_REG_0),
	LOAD(BPF_W, 32),
	OPERATE(BPF_XOR, BPF_REG_7, BPF_REG_0),
	LOAD(BPF_W, 36),
	OPERATE(BPF_XOR, BPF_REG_7, BPF_REG_0),
	LOAD(BPF_B, 6),
	SKIP_UNLESS(BPF_REG_0, 6, 16),
	LOAD(BPF_H, 40),
	OPERATE(BPF_XOR, BPF_REG_7, BPF_REG_0),
	LOAD(BPF_H, 42),
	OPERATE(BPF_XOR, BPF_REG_7, BPF_REG_0),
	SKIP(11),
	/* IPv4, taken to be without options: with some, other bytes are hashed, but the same ones for a flow */
	LOAD(BPF_W, 12),
	MOVE(BPF_REG_7, BPF_REG_0),
	LOAD(BPF_W, 16),
	OPERATE(BPF_XOR, BPF_REG_7, BPF_REG_0),
	LOAD(BPF_B, 9),
	SKIP_UNLESS(BPF_REG_0, 6, 5),
	LOAD(BPF_H, 6),
	OPERATE_WITH(BPF_AND, BPF_REG_0, 0x3fff), /* more fragments, and the offset */
	SKIP_UNLESS(BPF_REG_0, 0, 2),
	LOAD(BPF_W, 20),
	OPERATE(BPF_XOR, BPF_REG_7, BPF_REG_0),
	/* addresses of one network differ in few bits: mix them all into the upper half */
	OPERATE_WITH(BPF_MUL, BPF_REG_7, 0x61c88647),
	OPERATE_WITH(BPF_RSH, BPF_REG_7, 16),
	MOVE(BPF_REG_0, BPF_REG_7),
	OPERATE_WITH(BPF_AND, BPF_REG_0, 0xffff),
	EXIT,
};

int steer_attach(int tun_fd)
{
	union bpf_attr load;
	int program_fd, error = 0;

	memset(&load, 0, sizeof(load));
	load.prog_type = BPF_PROG_TYPE_SOCKET_FILTER;
	load.insns = (uint64_t)(uintptr_t)program;
	load.insn_cnt = sizeof(program) / sizeof(program[0]);
	load.license = (uint64_t)(uintptr_t)"";
	program_fd = (int)syscall(SYS_bpf, BPF_PROG_LOAD, &load, sizeof(load));
	if (program_fd < 0)
		return -errno;
	if (ioctl(tun_fd, TUNSETSTEERINGEBPF, &program_fd) < 0)
		error = -errno;
	close(program_fd); /* the TUN holds it now */
	return error;
}
