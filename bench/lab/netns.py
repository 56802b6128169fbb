"""Network namespaces with names of our own, and running things inside them.

Owns every namespace it makes, and ends whatever still runs in one before it is deleted. Knows nothing of topologies.
Programs enter through nsenter and not through `ip netns exec` or `ip -n`: these mount a fresh /sys first, which a
rootless user namespace may not do. The root namespace's links are never touched: every `ip` below runs inside.
"""

import ctypes
import itertools
import os
import signal
import subprocess
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Self, TypeVar

from bench.lab.cleanup import undisturbed
from bench.lab.process import Process, Processes
from bench.lab.wait import LabError, until

T = TypeVar("T")

RUN = Path("/run/netns")
"""Where `ip netns` keeps its names."""

COMMAND_S = 30.0
"""The longest a command may take that we wait for."""

_CLONE_NEWNET = 0x40000000
_serial = itertools.count()


def run(argv: Sequence[str], *, text: str = "", deadline_s: float = COMMAND_S, check: bool = True) -> str:
    """Runs a program to its end and returns its standard output; LabError when it fails (unless not `check`)."""
    try:
        done = subprocess.run(argv, input=text, capture_output=True, text=True, timeout=deadline_s, check=False)
    except OSError as error:
        raise LabError(f"cannot run {argv[0]}: {error.strerror}") from error
    except subprocess.TimeoutExpired:
        raise LabError(f"`{' '.join(argv)}` has not ended within {deadline_s:g} s") from None
    if check and done.returncode != 0:
        said = (done.stderr.strip() or done.stdout.strip() or "no message")[-2000:]
        raise LabError(f"`{' '.join(argv)}` failed ({done.returncode}): {said}")
    return done.stdout


class Namespace:
    """One network namespace. It is made on construction and stays until its Namespaces deletes it."""

    def __init__(self, name: str, processes: Processes) -> None:
        self.name = name
        self.path = RUN / name
        self._processes = processes

    def argv(self, command: Sequence[str]) -> list[str]:
        """The argument list that runs `command` inside."""
        return ["nsenter", f"--net={self.path}", "--", *command]

    def run(self, *command: str, text: str = "", deadline_s: float = COMMAND_S, check: bool = True) -> str:
        """Runs a program inside to its end; returns its standard output."""
        return run(self.argv(command), text=text, deadline_s=deadline_s, check=check)

    def start(self, *command: str, name: str) -> Process:
        """Starts a program inside that keeps running; it is stopped with the laboratory at the latest."""
        return self._processes.start(self.argv(command), name)

    def ip(self, *commands: str) -> None:
        """Runs `ip` commands inside, in one process, up to the first that fails."""
        batch = "\n".join(commands) + "\n"
        try:
            self.run("ip", "-batch", "-", text=batch)
        except LabError as error:
            raise LabError(f"{error}\nof these ip commands in {self.name}:\n{batch}") from None

    def call(self, function: Callable[[], T]) -> T:
        """Calls `function` in a thread that lives inside: a socket it makes belongs to this namespace for good."""

        def inside() -> T:
            descriptor = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                libc = ctypes.CDLL(None, use_errno=True)
                if libc.setns(descriptor, _CLONE_NEWNET) != 0:
                    raise LabError(f"cannot enter {self.name}: {os.strerror(ctypes.get_errno())}")
            finally:
                os.close(descriptor)
            return function()

        with ThreadPoolExecutor(max_workers=1) as pool:
            return pool.submit(inside).result()

    def sysctl(self, key: str, value: str) -> None:
        """Sets a `net.` key by its path, like `ipv4/ip_forward`; LabError when the kernel refuses."""
        try:
            self.call(lambda: Path("/proc/sys/net", key).write_text(value))
        except OSError as error:
            raise LabError(f"cannot set net/{key} to {value} in {self.name}: {error.strerror}") from error

    def pids(self) -> Iterator[int]:
        """Processes that live inside now."""
        inode = self.path.stat().st_ino
        for entry in Path("/proc").iterdir():
            with suppress(OSError):
                if entry.name.isdecimal() and (entry / "ns/net").stat().st_ino == inode:
                    yield int(entry.name)


class Namespaces:
    """Makes namespaces and deletes all of them when the context ends."""

    def __init__(self, processes: Processes, *, ipv6: bool = False) -> None:
        """`ipv6`: whether they have it."""
        self._processes = processes
        self._ipv6 = ipv6
        self._stack = ExitStack()
        self._prefix = f"udpb-{os.getpid()}-{next(_serial)}-"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with undisturbed():
            self._stack.close()  # one that cannot be deleted does not keep the others

    def add(self, label: str) -> Namespace:
        """Makes a namespace with loopback up and IPv6 off, or at least quiet: nothing is sent that nobody asked for."""
        namespace = Namespace(self._prefix + label, self._processes)
        self._stack.callback(self._delete, namespace)  # before it exists: an interruption in between must not lose it
        run(["ip", "netns", "add", namespace.name])
        if Path("/proc/sys/net/ipv6").exists():
            quiet = {"router_solicitations": "0", "accept_dad": "0"} if self._ipv6 else {"disable_ipv6": "1"}
            for scope, (key, value) in itertools.product(("all", "default"), quiet.items()):
                namespace.sysctl(f"ipv6/conf/{scope}/{key}", value)
        namespace.ip("link set lo up")
        return namespace

    @staticmethod
    def _delete(namespace: Namespace) -> None:
        """Ends what still runs inside (everything there is ours or a child of it), then deletes the name."""
        if not namespace.path.exists():
            return

        def empty() -> bool:
            left = list(namespace.pids())
            for pid in left:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            return not left

        try:
            until(empty, COMMAND_S, f"{namespace.name}: killed processes are still there")
        finally:
            run(["ip", "netns", "delete", namespace.name])
