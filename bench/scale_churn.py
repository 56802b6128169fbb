"""`python -m bench.scale_churn`: the nodes that nobody runs, as etcd sees them; a process of its own.

Owns the made-up leases, in the bytes that flannel writes, and the order in which they change. Every change is one that
matters (another public IP, a lease that goes, one that comes back) and a write of its own, as in life. They follow each
other at a fixed pace with a few under way at a time; a key changes again only long after its last change is done.
"""

import argparse
import asyncio
import itertools
import json
import signal
import time
from collections import deque
from collections.abc import Awaitable, Sequence
from ipaddress import IPv4Address
from typing import Any

import grpc
from aetcd import rpc

from bench.systems.scaled import PEERS_FROM, subnet

FIRST_SUBNET = 4096
"""Of scaled.NETWORK: 10.16.0.0, behind the laboratory's own."""
ADDRESSES = 1 << 20
"""172.16.0.0/12, less its first address: where public IPs come from."""
TTL_S = 24 * 3600
"""flannel's."""
AT_ONCE = 16
"""Writes under way."""
TICK_S = 0.005
TRANSACTION = 100
"""Leases written at once in the beginning; etcd takes 128."""
AWAY = 250
"""So many leases are gone at a time, or a quarter of all if that is less; four times as many changes lie between a
lease's going and its coming back, so that a watcher sees both."""


def leases_of(prefix: str) -> bytes:
    """What the key of every lease begins with."""
    return f"{prefix}/subnets/".encode()


def key(prefix: str, number: int) -> bytes:
    """That of a made-up node's lease."""
    return leases_of(prefix) + subnet(FIRST_SUBNET + number).replace("/", "-").encode()


def value(public_ip: int) -> bytes:
    """What flannel's udp backend writes there."""
    return f'{{"PublicIP":"{IPv4Address(public_ip)}","PublicIPv6":null}}'.encode()


class Fleet:
    """The nodes below one prefix, numbered from 0; `next` is the change whose turn it is."""

    def __init__(self, kv: Any, prefix: str, count: int, lease: int) -> None:
        self._kv = kv
        self._prefix = prefix
        self._lease = lease
        self._away = min(AWAY, count // 4)
        self._here = deque(range(count))
        self._gone: deque[int] = deque()
        self._turns = itertools.cycle((self._move, self._move, self._take_away, self._bring_back))
        self._fresh = int(time.time() * 1000) % ADDRESSES
        """Where the search for public IPs goes on; two nodes must not have the same at a time."""
        self._address: dict[int, int] = {}
        self._used: set[int] = set()

    async def read(self) -> None:
        """Learns the public IPs that stand in etcd."""
        first = leases_of(self._prefix)
        answer = await self._kv.Range(rpc.RangeRequest(key=first, range_end=first[:-1] + b"0"))
        known = {kv.key: int(IPv4Address(json.loads(kv.value)["PublicIP"])) for kv in answer.kvs}
        self._address = {number: known[key(self._prefix, number)] for number in self._here}
        self._used = set(self._address.values())

    async def fill(self) -> None:
        """Writes all of them, with public IPs in their order."""
        puts = [rpc.RequestOp(request_put=self._request(number, int(PEERS_FROM) + number)) for number in self._here]
        for start in range(0, len(puts), TRANSACTION):
            await self._kv.Txn(rpc.TxnRequest(success=puts[start : start + TRANSACTION]))

    def next(self) -> Awaitable[Any]:
        """A change."""
        return next(self._turns)()

    def restore(self) -> list[Awaitable[Any]]:
        """Brings back all that are gone."""
        return [self._come(self._gone.popleft()) for _ in range(len(self._gone))]

    def _move(self) -> Awaitable[Any]:
        number = self._here.popleft()
        self._used.discard(self._address[number])
        return self._come(number)

    def _take_away(self) -> Awaitable[Any]:
        number = self._here.popleft()
        self._gone.append(number)
        self._used.discard(self._address[number])
        done: Awaitable[Any] = self._kv.DeleteRange(rpc.DeleteRangeRequest(key=key(self._prefix, number)))
        return done

    def _bring_back(self) -> Awaitable[Any]:
        return self._come(self._gone.popleft()) if len(self._gone) > self._away else self._move()

    def _come(self, number: int) -> Awaitable[Any]:
        while True:
            self._fresh = (self._fresh + 1) % (ADDRESSES - 1)
            if (address := int(PEERS_FROM) + self._fresh) not in self._used:
                break
        self._here.append(number)
        self._address[number] = address
        self._used.add(address)
        done: Awaitable[Any] = self._kv.Put(self._request(number, address))
        return done

    def _request(self, number: int, address: int) -> Any:
        return rpc.PutRequest(key=key(self._prefix, number), value=value(address), lease=self._lease)


async def _granted(channel: Any) -> int:
    """A lease of etcd's. Who watches keys does not see that they share one."""
    return int((await rpc.LeaseStub(channel).LeaseGrant(rpc.LeaseGrantRequest(TTL=TTL_S))).ID)


async def fill(endpoint: str, prefixes: Sequence[str], count: int) -> None:
    """Writes all leases below each prefix."""
    async with grpc.aio.insecure_channel(endpoint) as channel:
        lease = await _granted(channel)
        for prefix in prefixes:
            await Fleet(rpc.KVStub(channel), prefix, count, lease).fill()


async def churn(endpoint: str, prefix: str, count: int, rate: int) -> None:
    """Changes `rate` leases a second until SIGTERM, brings back all, and says how many it changed in what time."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    async with grpc.aio.insecure_channel(endpoint) as channel:
        fleet = Fleet(rpc.KVStub(channel), prefix, count, await _granted(channel))
        await fleet.read()
        under_way: set[asyncio.Future[Any]] = set()
        began, sent = time.monotonic(), 0
        print("begins", flush=True)
        while not stop.is_set():
            while sent < (time.monotonic() - began) * rate and not stop.is_set():
                under_way.add(asyncio.ensure_future(fleet.next()))
                sent += 1
                if len(under_way) >= AT_ONCE:
                    done, under_way = await asyncio.wait(under_way, return_when=asyncio.FIRST_COMPLETED)
                    _check(done)
            await asyncio.sleep(TICK_S)
        await asyncio.gather(*under_way)
        took = time.monotonic() - began
        await asyncio.gather(*fleet.restore())
    print(json.dumps({"changes": sent, "seconds": took}))


def _check(done: set[asyncio.Future[Any]]) -> None:
    for each in done:
        each.result()


def main() -> None:
    """The program."""
    parser = argparse.ArgumentParser(prog="python -m bench.scale_churn", description="Write made-up leases into etcd.")
    parser.add_argument("--endpoint", required=True, help="address and port of etcd")
    parser.add_argument("--count", type=int, required=True, help="how many leases there are below each prefix")
    parser.add_argument("--rate", type=int, default=0, help="how many to change a second; 0: write all of them once")
    parser.add_argument("prefixes", nargs="+", help="of networks; with --rate one")
    options = parser.parse_args()
    if options.rate:
        asyncio.run(churn(options.endpoint, options.prefixes[0], options.count, options.rate))
    else:
        asyncio.run(fill(options.endpoint, options.prefixes, options.count))


if __name__ == "__main__":
    main()
