"""One refused request: what the kernel says no to once, at a start, at an edit or at a clean-up of a whole daemon.

Owns the double that stands between us and the kernel (every request passes it, one is refused), the daemon that runs in
this very process, and the picture of a network namespace. Must not know which requests there are: they are counted.
"""

import asyncio
import errno
import json
import subprocess
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from unittest import mock

from pyroute2.netlink import rtnl
from pyroute2.netlink.exceptions import NetlinkError
from pyroute2.netlink.nlsocket import NetlinkRequest

from udpbackend.backends import hostgw, keeper, udp, vxlan
from udpbackend.commands.status import fetch
from udpbackend.daemon import Daemon
from udpbackend.dataplane.inherit import Inheritance
from udpbackend.errors import HostError, UdpBackendError
from udpbackend.host import bulk, firewall_program
from udpbackend.host import rules as host_rules
from udpbackend.settings import Settings

ERRORS = (
    errno.EPERM, errno.ENOMEM, errno.EBUSY, errno.EEXIST, errno.ENODEV, errno.ENOBUFS, errno.EINVAL,
)  # fmt: skip
REFUSED, BUSY, LATE = "refused", "busy", "late"
MISHAPS = (REFUSED, BUSY, LATE)
"""Of a program: it fails, another one holds its lock, or it does its work and does not end."""
SETTLES_S = 15.0
PAUSE_S = 0.05
RESYNC_S = 0.3
STILL = 3
"""So many looks at a namespace in a row that find the same, and it is at rest."""
ENDS = 2
"""Of the underlay; the kernel routes multicast to each that is up."""
BEYOND = 10
AGAIN = 60
"""So many requests that change something may come on top of those of a run without a fault: repairs, not a loop."""

NODES = {
    "a": ("192.168.77.1", "10.5.1.0/24", "fd05:0:0:1::/64"),
    "b": ("192.168.77.2", "10.5.2.0/24", "fd05:0:0:2::/64"),
    "c": ("192.168.77.3", "10.5.3.0/24", "fd05:0:0:3::/64"),
    "d": ("192.168.77.4", "10.5.4.0/24", "fd05:0:0:4::/64"),
}


@dataclass
class Faults:
    """Counts requests while it is armed; refuses the one whose turn is `at`, with `code`."""

    at: int = 0
    code: int | str = 0
    """Of ERRORS, or of MISHAPS."""
    backend: str = ""
    """For whose sake: the scenarios need it."""
    rules: str = ""
    """`iptables` or `nftables`: programs are counted and fail, not requests."""
    armed: bool = False
    seen: list[str] = field(default_factory=list)

    def ask(self, what: str) -> None:
        """Raises NetlinkError in place of the request whose turn it is."""
        if not self.armed:
            return
        self.seen.append(what)
        if len(self.seen) == self.at:
            raise NetlinkError(self.code, "refused by a test")

    @property
    def writes(self) -> int:
        """How many of them would change something."""
        return sum(not it.startswith("GET") for it in self.seen)

    @property
    def requests(self) -> list[str]:
        """Those up to the last that would change something, and a look beyond: what follows are looks for ever."""
        last = max((at for at, it in enumerate(self.seen) if not it.startswith("GET")), default=0)
        return self.seen[: last + BEYOND]

    @contextmanager
    def between(self):
        """Everything that the process asks of the kernel's tables, or of these programs, passes here meanwhile."""
        with self._programs() if self.rules else self._requests():
            yield self

    @contextmanager
    def _programs(self):
        run = firewall_program.run

        def failing_run(program, *arguments, text=""):
            command = " ".join((program, *arguments))
            if self.armed:
                reads = any(it in arguments for it in ("-S", "list", "-V")) or program.endswith("-save")
                self.seen.append(f"GET {command}" if reads else command)
            if not self.armed or len(self.seen) != self.at:
                return run(program, *arguments, text=text)
            if self.code == LATE:
                run(program, *arguments, text=text)
                raise HostError(f"`{command}` has not ended within a test's time")
            if self.code == BUSY:
                words = f"Another app is currently {firewall_program.BUSY_WORDS}"
                return firewall_program.Ended(command, firewall_program.BUSY_STATUS, "", words)
            return firewall_program.Ended(command, 1, "", "refused by a test")

        with mock.patch.object(firewall_program, "run", failing_run):
            yield

    @contextmanager
    def _requests(self):
        send, exchange, dump = NetlinkRequest.send, bulk.Bulk._exchange, bulk.Bulk._dump

        async def refusing_send(request):
            self.ask(name(request.msg["header"]["type"]))
            return await send(request)

        def refusing_exchange(self_, requests):
            answers = []
            for request in requests:
                try:
                    self.ask(name(request[0]))
                except NetlinkError as error:
                    answers.append(OSError(error.code, "refused by a test"))
                else:
                    answers += exchange(self_, [request])
            return answers

        def refusing_dump(self_, request):
            try:
                self.ask(name(request[0]))
            except NetlinkError as error:
                raise OSError(error.code, "refused by a test") from None
            return dump(self_, request)

        with (
            mock.patch.object(NetlinkRequest, "send", refusing_send),
            mock.patch.object(bulk.Bulk, "_exchange", refusing_exchange),
            mock.patch.object(bulk.Bulk, "_dump", refusing_dump),
        ):
            yield


def name(kind):
    """`NEWROUTE` of RTM_NEWROUTE."""
    return next((it[4:] for it in dir(rtnl) if it.startswith("RTM_") and getattr(rtnl, it) == kind), str(kind))


VOLATILE = {
    "ifindex", "link_index", "stats", "stats64", "expires", "used", "confirmed", "updated", "probes", "refcnt",
    "valid_life_time", "preferred_life_time", "num_rx_queues", "num_tx_queues", "parentbus", "parentdev", "flags",
    "operstate", "state", "gso_max_size", "persist", "nodad", "created",
}  # fmt: skip
PICTURE = (
    ("ip", "-j", "-d", "link"),
    ("ip", "-j", "address"),
    ("ip", "-j", "-4", "route", "show", "table", "all"),
    ("ip", "-j", "-6", "route", "show", "table", "all"),
    ("ip", "-j", "neighbour", "show", "nud", "permanent"),
    ("bridge", "-j", "fdb"),
)
RULES = (("iptables-save",), ("ip6tables-save",), ("nft", "--stateless", "list", "ruleset"))


def picture(directory, *, rules=False):
    """What a run can have changed, without what changes by itself; with the rules of iptables and nft if asked."""
    found = {}
    for command in PICTURE:
        rows = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout or "[]")
        found[" ".join(command)] = sorted(json.dumps(plain(row), sort_keys=True) for row in rows)
    file = directory / "subnet.env"
    for command in RULES if rules else ():
        lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
        found[" ".join(command)] = [it.strip() for it in lines if "flannel" in it.lower() or it.startswith("-A")]
    found["subnet.env"] = [file.read_text()] if file.exists() else []
    return found


def plain(row):
    """Without what is volatile; the kernel's own link-local addresses and their routes come when they come."""
    if isinstance(row, dict):
        up = {"up": "UP" in row["flags"]} if isinstance(row.get("flags"), list) and "ifname" in row else {}
        return {key: plain(it) for key, it in row.items() if key not in VOLATILE} | up
    return [plain(it) for it in row] if isinstance(row, list) else row


def difference(one, other):
    """The lines in which two pictures differ."""
    lines = []
    for key in one:
        lines += [f"- {key}: {it}" for it in one[key] if it not in other[key]]
        lines += [f"+ {key}: {it}" for it in other[key] if it not in one[key]]
    return "\n".join(lines)


def lay_out():
    """An underlay whose other end nobody is at."""
    for words in (
        "link set lo up",
        "link add eth0 address 02:00:00:00:00:01 type veth peer name other address 02:00:00:00:00:02",
        "link set other addrgenmode none up",
        "link set eth0 addrgenmode none",
        "address add 192.168.77.1/24 dev eth0",
        "address add fd77::1/64 dev eth0 nodad",
        "link set eth0 up",
    ):
        subprocess.run(["ip", *words.split()], check=True)


async def at_rest(directory):
    """Waits until the kernel has made all that it adds to an underlay by itself."""
    seen = []
    async with asyncio.timeout(SETTLES_S):
        while seen[-STILL:].count(picture(directory)) < STILL or str(seen[-1]).count("ff00::/8") < ENDS:
            seen.append(picture(directory))
            await asyncio.sleep(PAUSE_S)


def registry(directory, faults, nodes="ab"):
    """Writes the static registry in one step; which nodes are in it."""
    entries = [
        {"Name": it, "PublicIP": NODES[it][0], "PublicIPv6": NODES[it][0].replace("192.168.77.", "fd77::"),
         "Subnet": NODES[it][1], "IPv6Subnet": NODES[it][2]}
        for it in nodes
    ]  # fmt: skip
    document = {
        "Network": "10.5.0.0/16", "EnableIPv6": True, "IPv6Network": "fd05::/48",
        "Backend": {"Type": faults.backend}, "EnableNFTables": faults.rules == "nftables", "Nodes": entries,
    }  # fmt: skip
    new = directory / "new"
    new.write_text(json.dumps(document))
    new.rename(directory / "nodes.json")


class Running:
    """A daemon in this process and on this loop."""

    def __init__(self, directory: Path, faults: Faults, **more: object) -> None:
        self.directory = directory
        self.settings = Settings(
            iface=("eth0",), subnet_file=directory / "subnet.env", static_subnets=directory / "nodes.json",
            node_name="a", iptables_forward_rules=bool(faults.rules), ip_masq=bool(faults.rules),
            ip_blackhole_route=True, nice=0, iptables_resync=RESYNC_S, **more,
        )  # fmt: skip
        self._daemon = Daemon(self.settings, Inheritance(), None)
        self.task = asyncio.create_task(self._daemon.main())

    async def ready(self) -> bool:
        """Waits; False if it has ended instead."""
        async with asyncio.timeout(SETTLES_S):
            while not self.task.done():
                if await self.state() in ("ready", "degraded"):
                    return True
                await asyncio.sleep(PAUSE_S)
        return False

    async def state(self) -> str:
        """Its verdict; empty while nobody answers."""
        with suppress(UdpBackendError, OSError):
            document = json.loads(await asyncio.to_thread(fetch, self.settings.status_socket))
            self.reasons = document["verdict"]["reasons"]
            return document["verdict"]["state"]
        return ""

    async def end(self) -> str:
        """Stops it as SIGTERM does; the line it ends with, if any."""
        if not self.task.done():
            self._daemon._stop.set()
        try:
            async with asyncio.timeout(SETTLES_S):
                await self.task
        except UdpBackendError as error:
            return str(error)
        return ""


@contextmanager
def hasty():
    """Nothing is waited for as long as in real life."""
    with (
        mock.patch.object(udp, "REPAIR_INTERVAL_S", 0.3),
        mock.patch.object(keeper, "PACE_S", 0.1),
        mock.patch.object(hostgw, "LOOK_S", 0.3),
        mock.patch.object(vxlan, "LOOK_S", 0.3),
        mock.patch.object(host_rules, "AGAIN_S", 0.1),
    ):
        yield


async def becomes(directory, wanted, *, rules=False):
    """Waits until the namespace looks so; what differs in the end."""
    left = difference(wanted, picture(directory, rules=rules))
    with suppress(TimeoutError):
        async with asyncio.timeout(SETTLES_S):
            while left:
                await asyncio.sleep(PAUSE_S)
                left = difference(wanted, picture(directory, rules=rules))
    return left
