"""What a processor was doing, from the call chains that `perf script` prints.

Owns the kinds of work a sample is sorted into and the reading of the text. Pure: runs nothing. Must not know systems or
links: the same kinds serve a kernel overlay and a daemon, whose rows of the other's are empty.
"""

from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

FIELDS = "comm,pid,ip,sym,dso"
"""What `perf script` is asked for."""
IDLE = "idle"
KINDS = {
    "app-kernel": "copy: application to kernel",
    "tun-daemon": "copy: TUN to daemon",
    "daemon-datagrams": "copy: daemon to datagrams",
    "datagrams-daemon": "copy: datagrams to daemon",
    "daemon-tun": "copy: daemon to TUN",
    "kernel-app": "copy: kernel to application",
    "out": "kernel, out: TCP, cutting, the link",
    "in": "kernel, in: interrupts, GRO, to the socket",
    "inner": "kernel, writes to the TUN: inner TCP",
    "daemon-kernel": "daemons: other system calls",
    "daemon-c": "daemons: C",
    "daemon-python": "daemons: Python",
    "app": "applications",
    "rest": "everything else",
}
"""In the order of a packet's way, and in words."""

COPIES = ("_copy_to_iter", "_copy_from_iter")
PURPOSES = {"tun_chr_write_iter": "inner", "__dev_queue_xmit": "out", "tcp_write_xmit": "out", "udp_sendmsg": "out"}
"""Functions of the kernel that say what is done below them; softirqs have several names."""
HALTS = ("halt", "idle", "mwait")
INTERPRETER = ("python", "libpython", "loop.")
"""How the files begin that are the daemons' Python: the interpreter, and uvloop."""


@dataclass(frozen=True)
class Sample:
    """One look at one processor: the process, and the functions that were being called, innermost first."""

    comm: str
    pid: int
    chain: tuple[str, ...]
    file: str
    """Of the innermost function, without its directory; a name in brackets is the kernel's."""


def parse(text: str) -> Iterator[Sample]:
    """Reads what `perf script -F FIELDS` printed: a line for the process, one for each function, an empty one."""
    for block in text.split("\n\n"):
        first, *frames = block.strip("\n").split("\n")
        comm, _, pid = first.rstrip().rpartition(" ")
        if not frames or not pid.isdigit():
            continue
        names = [frame.split(maxsplit=1)[-1].rpartition(" (") for frame in frames]
        chain = tuple(name.partition("+")[0] for name, _, _ in names)
        yield Sample(comm.strip(), int(pid), chain, names[0][2].rstrip(")").rpartition("/")[2])


def _copy(sample: Sample, *, daemon: bool) -> str:
    into_kernel = sample.chain[0] == "_copy_from_iter"
    if "tun_chr_read_iter" in sample.chain:
        return "tun-daemon"
    if "tun_chr_write_iter" in sample.chain:
        return "daemon-tun"
    if daemon:
        return "daemon-datagrams" if into_kernel else "datagrams-daemon"
    return "app-kernel" if into_kernel else "kernel-app"


def _kernel(chain: Sequence[str]) -> str | None:
    """By what it was last called for: a packet received may set off one that is sent, and the other way round."""
    for name in chain:
        if "softirq" in name:
            return "in"
        if name in PURPOSES:
            return PURPOSES[name]
    return None


def kind(sample: Sample, daemons: Collection[int], applications: Collection[str]) -> str:
    """One of KINDS, or IDLE."""
    daemon, application = sample.pid in daemons, sample.comm in applications
    if sample.pid == 0 and any(word in sample.chain[0] for word in HALTS):
        return IDLE
    if sample.chain[0] in COPIES and (daemon or application):
        return _copy(sample, daemon=daemon)
    if sample.file.startswith(("[kernel", "[guest")):
        return _kernel(sample.chain) or ("daemon-kernel" if daemon else "app" if application else "rest")
    if daemon:
        return "daemon-python" if sample.file.startswith(INTERPRETER) else "daemon-c"
    return "app" if application else "rest"


def count(text: str, daemons: Collection[int], applications: Collection[str]) -> Counter[str]:
    """How many samples of each kind there are."""
    return Counter(kind(sample, daemons, applications) for sample in parse(text))
