/* virtio: the virtio network header of TUN packets, with what headers older than Linux 6.2 lack. */
#ifndef UDPB_VIRTIO_H
#define UDPB_VIRTIO_H

#include <linux/if_tun.h>
#include <linux/virtio_net.h>

#ifndef VIRTIO_NET_HDR_GSO_UDP_L4
#define VIRTIO_NET_HDR_GSO_UDP_L4 5
#endif
#ifndef TUN_F_USO4
#define TUN_F_USO4 0x20
#define TUN_F_USO6 0x40
#endif

#endif
