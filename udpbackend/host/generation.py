"""The generation of this network namespace's nf_tables: a number that every change of any rule in it raises.

Owns the one question to the kernel. It must not know rules. Who has seen that rules are right need not run a program to
see it again as long as the number is the same. Rules in the older ip_tables have no such number.

Source: linux/netfilter/nf_tables.h, NFT_MSG_GETGEN, which nf_tables_getgen of the kernel answers; needs CAP_NET_ADMIN.
"""

from __future__ import annotations

import socket
import struct

NETLINK_NETFILTER = 12
SUBSYSTEM = 10  # NFNL_SUBSYS_NFTABLES
NEWGEN, GETGEN = 15, 16
NLM_F_REQUEST = 1
NFTA_GEN_ID = 1
HEADER = struct.Struct("=IHHII")
"""struct nlmsghdr: length, type, flags, sequence, port."""
FAMILY = struct.Struct("=BBH")
"""struct nfgenmsg: family, version, resource."""
ATTRIBUTE = struct.Struct("=HH")
"""struct nlattr: length, type; what follows is padded to four bytes."""
LIMIT_S = 1.0


def generation() -> int | None:
    """The number now; None where the kernel does not say."""
    request = HEADER.pack(HEADER.size + FAMILY.size, SUBSYSTEM << 8 | GETGEN, NLM_F_REQUEST, 1, 0) + FAMILY.pack(
        0, 0, 0
    )
    try:
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, NETLINK_NETFILTER) as asked:
            asked.settimeout(LIMIT_S)
            asked.sendto(request, (0, 0))
            return parse(asked.recv(4096))
    except OSError:
        return None


def parse(answer: bytes) -> int | None:
    """The number in an answer of the kernel; None for any other message."""
    if len(answer) < HEADER.size + FAMILY.size:
        return None
    length, kind, *_ = HEADER.unpack_from(answer)
    at, end = HEADER.size + FAMILY.size, min(length, len(answer))
    while kind == SUBSYSTEM << 8 | NEWGEN and at + ATTRIBUTE.size <= end:
        size, name = ATTRIBUTE.unpack_from(answer, at)
        if name == NFTA_GEN_ID and size == ATTRIBUTE.size + 4 and at + size <= end:
            return int.from_bytes(answer[at + ATTRIBUTE.size : at + size], "big")
        at += max(size, ATTRIBUTE.size) + 3 & ~3
    return None
