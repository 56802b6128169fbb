"""The rules that let only peers into an overlay of the kernel's, in a real nf_tables and with real datagrams."""

import socket
import subprocess
from dataclasses import replace
from ipaddress import IPv4Address

import pytest
from firewall_facts import require
from inside import in_namespace, ip

from udpbackend.host import fou_guard
from udpbackend.host.fou_guard import Guard, Wanted

PORT = 8285
ANSWER_S = 5
DAMAGES = (
    "delete table ip udpbackend-8285",
    "flush chain ip udpbackend-8285 input",
    "add element ip udpbackend-8285 peers { 127.0.0.9 }",
    "delete element ip udpbackend-8285 peers { 127.0.0.2 }",
    "delete table ip6 udpbackend-8285",
)


def wanted(*peers, tunnels=(), device6=None):
    packed = [frozenset(IPv4Address(it).packed for it in group) for group in (peers, tunnels)]
    return Wanted(IPv4Address("127.0.0.1"), PORT, *packed, device6=device6)


def let_in(source, data=b"E..."):
    """Whether a datagram from an address of loopback reaches the port. A first byte like `E` is an IPv4 packet's."""
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as unguarded,
    ):
        receiver.bind(("127.0.0.1", PORT))
        unguarded.bind(("127.0.0.1", 0))
        sender.bind((source, 0))
        sender.sendto(data, ("127.0.0.1", PORT))
        sender.sendto(b"last", unguarded.getsockname())
        unguarded.settimeout(ANSWER_S)
        assert unguarded.recv(16) == b"last"  # loopback keeps the order: what was let in is there by now
        receiver.settimeout(0)
        try:
            return receiver.recv(16) == data
        except BlockingIOError:
            return False


@pytest.fixture(autouse=True)
def nft():
    require("nft")


@in_namespace
def test_only_peers_are_let_in_and_a_change_counts_at_once():
    ip("link", "set", "lo", "up")
    guard = Guard()
    assert guard.settle(wanted("127.0.0.2")) == ("made the rules for what is let in",)
    assert (let_in("127.0.0.2"), let_in("127.0.0.3")) == (True, False)
    assert guard.settle(wanted("127.0.0.2")) == ()
    assert guard.settle(wanted("127.0.0.3")) == ()
    assert (let_in("127.0.0.2"), let_in("127.0.0.3")) == (False, True)
    assert guard.settle(wanted("127.0.0.3", tunnels=["192.0.2.9"], device6="flannel0-v6")) == ()
    assert guard.settle(wanted("127.0.0.3", tunnels=["192.0.2.9"], device6="flannel0-v6")) == ()
    assert fou_guard.leftovers() == fou_guard.tables(PORT)
    assert [let_in("127.0.0.3", data) for data in (b"`...", b"\0...", b"\x01\x06")] == [True, False, False]
    guard.settle(replace(wanted(), check=False))
    assert [let_in("127.0.0.9", data) for data in (b"E...", b"\0...")] == [True, False]
    guard.settle(wanted(device6="flannel0-v6"))
    assert len(fou_guard.remove()) == 2
    assert fou_guard.remove() == fou_guard.leftovers() == ()
    assert let_in("127.0.0.2")


@in_namespace
def test_what_others_change_is_made_anew():
    guard = Guard()
    guard.settle(wanted("127.0.0.2", device6="flannel0-v6"))
    for damage in DAMAGES:
        guard._rested_at = 0.0
        assert guard.settle(wanted("127.0.0.2", device6="flannel0-v6")) == ()
        subprocess.run(["nft", damage], check=True)
        guard._rested_at = 0.0
        told = guard.settle(wanted("127.0.0.2", device6="flannel0-v6"))
        assert told == ("the rules for what is let in had been changed",), damage


@in_namespace
def test_a_change_of_peers_where_the_set_is_gone_makes_it_anew():
    guard = Guard()
    guard.settle(wanted("127.0.0.2"))
    subprocess.run(["nft", "delete table ip udpbackend-8285"], check=True)
    assert guard.settle(wanted("127.0.0.3")) == ("the rules for what is let in were gone",)
    assert fou_guard._peers(PORT) == wanted("127.0.0.3").peers


@in_namespace
def test_65536_peers():
    peers = [str(IPv4Address(0x0A000000 + number)) for number in range(65536)]
    guard = Guard()
    guard.settle(wanted(*peers))
    assert guard.settle(wanted(*peers[1:], "192.0.2.1")) == ()
    assert len(fou_guard._peers(PORT)) == 65536


@in_namespace
def test_each_port_has_tables_of_its_own_and_others_are_not_looked_at():
    assert fou_guard.leftovers() == ()
    for port in (8285, 8300):
        Guard().settle(replace(wanted("127.0.0.2"), port=port))
    subprocess.run(["nft", "add table ip udpbackend; add table inet udpbackend-8285"], check=True)
    assert set(fou_guard.leftovers()) == {"ip udpbackend-8285", "ip udpbackend-8300"}
    assert fou_guard.remove(8285) == ("nftables table ip udpbackend-8285",)
    assert fou_guard.leftovers() == ("ip udpbackend-8300",)
    assert fou_guard.remove() == ("nftables table ip udpbackend-8300",)
    assert fou_guard.remove() == ()
