"""The static registry: one JSON file says which node owns which subnet, and may be edited while we run.

Owns the file: reading it, finding this host in it, and noticing edits. The file is looked at when something beside it
has changed, which shows every way of changing it (in place, by rename, through a symlink as Kubernetes does), and every
ten seconds for what a watch cannot see. Because a look may fall into the middle of a write, a changed file is read at
once and once more at the next look: what is good is used at once, what is wrong is believed only when it has not
changed since.

An edit that is wrong, or that this process cannot follow, leaves the last good leases in use and the state degraded.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
import stat
import time
from collections.abc import AsyncGenerator
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

import msgspec

from udpbackend.errors import ConfigError, HostError, RestartNeededError
from udpbackend.model import Attributes, Lease, NetworkConfig, Snapshot
from udpbackend.settings import Settings
from udpbackend.subnets.filewatch import FileWatch
from udpbackend.subnets.manager import Check, RegistryState
from udpbackend.subnets.nodes import parse_nodes

log = logging.getLogger(__name__)

POLL_S = 0.25
"""Between two looks at a file that changes, or that is wrong."""
IDLE_S = 10.0
"""Between two looks at one that does not."""

OPEN_FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK
"""Non-blocking, or a FIFO would hold us up before it can be refused."""

Stamp = tuple[int, ...]
"""What tells one content of a file from another without reading it."""


def manager(settings: Settings) -> StaticSubnets:
    """The registry that --static-subnets and --node-name ask for."""
    if settings.static_subnets is None:
        raise ConfigError("the static registry needs a file: expected --static-subnets=FILE")
    return StaticSubnets(settings.static_subnets, settings.node_name)


class StaticFile(msgspec.Struct, frozen=True):
    """One good content of the file."""

    config: NetworkConfig
    leases: tuple[Lease, ...]
    """In the order of their subnets."""
    stamp: Stamp


class StaticSubnets:
    """The registry in `path`; `node_name` says which node this host is, otherwise its public address does."""

    def __init__(self, path: Path, node_name: str | None) -> None:
        self._path = path
        self._node_name = node_name
        self._digest = b""
        self._parsed: tuple[NetworkConfig, tuple[Lease, ...]] | None = None
        self._revision = 0
        self._last_sync = 0.0
        self._degraded: str | None = None
        self._file: StaticFile

    @property
    def public_addresses(self) -> tuple[IPv4Address | None, IPv6Address | None]:
        """The file names what `held` compares, but does not choose for us."""
        return None, None

    async def open(self, check: Check) -> NetworkConfig:
        """Reads and checks the file."""
        config = (await asyncio.to_thread(self.load)).config
        check(config)
        return config

    async def held(self, public_ip: IPv4Address) -> Lease | None:
        """The lease the file gives this host."""
        return self.own(self._file, public_ip)

    async def acquire(self, attributes: Attributes) -> Lease:
        """The same: there is nobody to tell of it."""
        return self.own(self._file, attributes.public_ip)

    async def watch(self, own: Lease) -> AsyncGenerator[Snapshot, None]:
        """The leases of the file, and again after each good edit that changes them."""
        yield self.snapshot(self._file)
        async for snapshot in self.edits(own):
            yield snapshot

    async def run(self) -> None:
        """Nothing is to be renewed."""

    async def complete(self, sound: asyncio.Event) -> None:
        """Nobody is to be told."""

    async def close(self) -> None:
        """Nothing is held open."""

    @property
    def state(self) -> RegistryState:
        """How the registry fares."""
        return RegistryState("static", str(self._path), self._last_sync, self._degraded, self._revision)

    def load(self) -> StaticFile:
        """Reads and checks the file now. Raises ConfigError, or HostError if it cannot be read."""
        self._file = file = self._read()
        self._revision += 1
        self._last_sync = time.time()
        return file

    def snapshot(self, file: StaticFile) -> Snapshot:
        """The leases of a file; `edits` yields only what comes after those that were loaded."""
        return Snapshot(file.leases, self._revision)

    def own(self, file: StaticFile, public_ip: IPv4Address) -> Lease:
        """The lease of this host. Raises ConfigError that says what to mend."""
        lease = self._find(file, int(public_ip))
        if lease is None and self._node_name is not None:
            raise ConfigError(
                f"this host is not among the nodes of {self._path}: none has the Name {self._node_name!r}; "
                "add it, or correct --node-name"
            )
        if lease is None:
            raise ConfigError(
                f"this host ({public_ip}) is not among the nodes of {self._path}: add a node with this PublicIP, "
                "choose another address with --iface or --public-ip, or name the node with --node-name"
            )
        if lease.public_ip != int(public_ip):
            raise ConfigError(
                f"node {self._node_name!r} of {self._path} has the PublicIP {lease.public_address}, this host has "
                f"{public_ip}: correct the file, or give --public-ip={lease.public_address} or another --iface"
            )
        return lease

    async def edits(self, own: Lease) -> AsyncGenerator[Snapshot, None]:
        """Yields the leases after each good edit that changes them; never ends by itself.

        `own` is this host's lease in the file that was loaded last.
        """
        config, seen, settled, retry = self._file.config, self._file.stamp, False, False
        with FileWatch(self._path) as watch:
            while True:
                await self._next_look(watch, idle=settled and not retry)
                stamp, found = await asyncio.to_thread(self._look, None if retry or not settled else seen)
                if found is None:
                    if self._degraded is None:
                        self._last_sync = time.time()
                    continue
                settled, seen, retry = stamp == seen, stamp, isinstance(found, HostError)
                if self._takes(found, config, own, settled=settled):
                    yield self.snapshot(self._file)

    @staticmethod
    async def _next_look(watch: FileWatch, *, idle: bool) -> None:
        if idle and watch.sees:
            await watch.changed(IDLE_S)
        await asyncio.sleep(POLL_S)  # after a change, too: a directory in which much happens shall be no load

    def _takes(
        self, found: StaticFile | ConfigError | HostError, config: NetworkConfig, own: Lease, *, settled: bool
    ) -> bool:
        """Whether there are new leases; what is wrong with the file becomes the state, once it has `settled`."""
        try:
            if not isinstance(found, StaticFile):
                raise found
            self._require_followable(config, own, found)
        except RestartNeededError as error:
            self._degrade(f"restart needed: {error}")
        except (ConfigError, HostError) as error:
            if settled:
                self._degrade(str(error))
        else:
            self._recover()
            if found.leases != self._file.leases:
                self._file = found
                self._revision += 1
                return True
        return False

    def _look(self, seen: Stamp | None) -> tuple[Stamp, StaticFile | ConfigError | HostError | None]:
        """What the file holds, unless its stamp is `seen`. Runs in a thread: the disk may be slow."""
        stamp: Stamp = ()
        try:
            stamp = _stamp(self._path.stat())
            if stamp == seen:
                return stamp, None
            file = self._read()
        except OSError as error:
            return stamp, _unreadable(self._path, error)
        except (ConfigError, HostError) as error:
            return stamp, error
        return file.stamp, file

    def _read(self) -> StaticFile:
        try:
            with os.fdopen(os.open(self._path, OPEN_FLAGS), "rb") as opened:
                status = os.fstat(opened.fileno())  # before reading: a write in between shows as a new stamp
                if not stat.S_ISREG(status.st_mode):
                    raise HostError(f"cannot read {self._path}: expected a regular file")
                # A second look at one content costs neither its memory nor its parsing.
                if self._parsed is not None and hashlib.file_digest(opened, hashlib.sha256).digest() == self._digest:
                    return StaticFile(*self._parsed, _stamp(status))
                opened.seek(0)
                data = opened.read()
        except OSError as error:
            raise _unreadable(self._path, error) from None
        digest, known = hashlib.sha256(data).digest(), self._parsed[1] if self._parsed else ()
        try:
            self._parsed = parse_nodes(data, known)
        except ConfigError as error:
            raise ConfigError(f"{self._path}: {error}") from None
        self._digest = digest
        return StaticFile(*self._parsed, _stamp(status))

    def _find(self, file: StaticFile, public_ip: int) -> Lease | None:
        if self._node_name is not None:
            return next((lease for lease in file.leases if lease.node == self._node_name), None)
        return next((lease for lease in file.leases if lease.public_ip == public_ip), None)

    def _require_followable(self, old: NetworkConfig, own: Lease, new: StaticFile) -> None:
        """Raises RestartNeededError for what is settled when the daemon starts."""
        config = new.config
        for name, before, after in (
            ("Network", old.network, config.network),
            ("SubnetLen", old.subnet_len, config.subnet_len),
            ("IPv6Network", *(it.ipv6 and it.ipv6.network for it in (old, config))),
            ("IPv6SubnetLen", *(it.ipv6 and it.ipv6.subnet_len for it in (old, config))),
            ("EnableNFTables", old.nftables, config.nftables),
            ("Backend", old.backend.options, config.backend.options),
        ):
            if before != after:
                raise RestartNeededError(
                    f"{self._path}: {name} has changed from {_or_nothing(before)} to {_or_nothing(after)}"
                )
        mine = self._find(new, own.public_ip)
        who = f"this host ({self._node_name or own.public_address})"
        if mine is None:
            raise RestartNeededError(f"{self._path}: {who} is no longer among the nodes")
        for name, was, now in (
            ("Subnet", own.subnet, mine.subnet),
            ("IPv6Subnet", own.ipv6_subnet, mine.ipv6_subnet),
            ("PublicIP", own.public_address, mine.public_address),
        ):
            if was != now:
                raise RestartNeededError(
                    f"{self._path}: the {name} of {who} has changed from {_or_nothing(was)} to {_or_nothing(now)}"
                )

    def _degrade(self, reason: str) -> None:
        if reason != self._degraded:
            log.warning("the leases in use stay as they were: %s", reason)
        self._degraded = reason

    def _recover(self) -> None:
        if self._degraded is not None:
            log.info("%s is good again", self._path)
        self._degraded = None
        self._last_sync = time.time()


def _stamp(status: os.stat_result) -> Stamp:
    return (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


def _or_nothing(value: object) -> object:
    return "nothing" if value is None else value


def _unreadable(path: Path, error: OSError) -> HostError:
    return HostError(f"cannot read {path}: {error.strerror}")
