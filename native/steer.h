/* steer: which queue of a multi-queue TUN the kernel puts a packet into.
 *
 * Owns one small BPF program. The TUN's own choice learns: a flow moves to the queue its answers came in by, and what is
 * still in the old one is overtaken. Ours is a hash of the packet, so a flow stays where it is. It must not know queues.
 */
#ifndef UDPB_STEER_H
#define UDPB_STEER_H

/* Attaches the program to the TUN of which `tun_fd` is a queue (borrowed). Returns 0 or -errno: -EPERM without CAP_BPF,
 * -ENOSYS or -EINVAL where the kernel knows neither; the TUN then goes on choosing by itself. */
int steer_attach(int tun_fd);

#endif
