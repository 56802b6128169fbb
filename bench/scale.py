"""`python -m bench scale`: thousands of nodes in etcd, the start of a daemon, and traffic while all of them change.

Owns the laboratory (daemons on hosts a and b, etcd on host c), the order of the windows and the document. Windows are
taken in turn: in `watched` the changes are to the leases that the daemons follow, in `elsewhere` to as many others in
the same etcd, so that everything but the following is the same. The leases are made up and changed by scale_churn.
"""

import argparse
import json
import re
import shutil
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

from bench import links, meter, result, scale_page, surroundings
from bench.lab import etcd, rootless
from bench.lab.cleanup import sigterm_unwinds
from bench.lab.daemon import Overlay
from bench.lab.process import Process
from bench.lab.topology import Host, Lab
from bench.lab.traffic import Way
from bench.lab.wait import LabError, until
from bench.progress import Progress
from bench.scale_churn import leases_of
from bench.scale_others import others_busy_s
from bench.systems.scaled import NETWORK
from bench.workloads import sockperf

OURS = "/coreos.com/network"
ELSEWHERE = "/elsewhere/network"
PREFIXES = {"watched": OURS, "elsewhere": ELSEWHERE}
LINK = "wire"
STARTS = 3
FULL_S = 60.0
FILL_S = 60.0
AGREE_S = 20.0
"""What the daemons may take to know etcd's content when the changes are over."""
PROBE_INTERVAL_S = 0.01
SET_UP_S = 20.0
BETWEEN_S = 4.0
SETTLE_S = 5.0
DOUBLED = 2.0
HELD = ("latency_p99_s", "ping_p99_s")
"""A ping-pong waits where an answer is late, and so hides what a ping at its fixed time shows."""
DISTURBED_CORES = 0.25
"""A window during which other programs took more than this is shown, but counts for nothing."""
TRIES = 2
"""So many times the pairs asked for are taken at most until enough of them were not disturbed."""
CALM_S, LOOK_S = 20.0, 1.0
"""How long a pair waits for others to be done, and over what time it looks at them."""
PROGRAMS = ("etcd", "etcdctl", "sockperf", "ethtool", "ping")
_SENT = re.compile(r"^(\d+) packets transmitted", re.MULTILINE)
_TIME = re.compile(r" time=([\d.]+) ms$", re.MULTILINE)
RESULT = surroundings.ROOT / "bench" / "results" / "scale.json"


@dataclass(frozen=True)
class Settings:
    """What is asked for."""

    nodes: int = 5000
    """Ours included."""
    rate: int = 1000
    """Changes a second."""
    seconds: int = 15
    """Of each window."""
    pairs: int = 4
    anyway: bool = False
    """Whether other programs may disturb it."""

    @property
    def made_up(self) -> int:
        """Nodes that are nothing but entries."""
        return self.nodes - 2


@dataclass(frozen=True)
class Reading:
    """What is counted, at one moment."""

    at: float
    machine_busy_s: float
    daemons_busy_s: float
    etcd_busy_s: float
    others_busy_s: float
    publications: int
    """By both daemons."""


class Cluster:
    """The laboratory with everything that runs in it."""

    def __init__(self, lab: Lab, overlay: Overlay, server: etcd.Server, settings: Settings) -> None:
        self.settings = settings
        self._overlay = overlay
        self._etcd = server
        self._a, self._b, c = lab.hosts
        self._beside_etcd = c.namespace

    @property
    def _ours(self) -> tuple[Host, Host]:
        return self._a, self._b

    def fill(self) -> None:
        """Puts the configuration and all made-up leases into etcd, and as many elsewhere."""
        config = {"Network": NETWORK, "SubnetLen": 24, "Backend": {"Type": "udp"}}
        self._beside_etcd.run(*etcd.ctl(self._etcd.url, "put", f"{OURS}/config", json.dumps(config)))
        self._beside_etcd.run(*self._writer(*PREFIXES.values()), deadline_s=FILL_S)

    def start(self) -> list[dict[str, Any]]:
        """Starts the daemons; one of them several times, with everybody else's lease there already."""
        self._start(self._a, self.settings.nodes - 2)
        starts = []
        for number in range(STARTS):
            if number:
                self._overlay.stop(self._b)
            starts.append(self._start(self._b, self.settings.nodes - 1))
        self.agree()
        return starts

    def _start(self, host: Host, routes: int) -> dict[str, Any]:
        """From exec to the first table. The subnet file is written behind that, and looking at it disturbs nobody."""
        file = self._overlay.run_directory(host) / "subnet.env"
        file.parent.mkdir(exist_ok=True)
        file.write_text(f"FLANNEL_NETWORK={NETWORK}\nFLANNEL_SUBNET={host.gateway}/24\n")
        began = time.monotonic()
        process = self._overlay.launch(host)
        try:
            until(lambda: "FLANNEL_MTU" in file.read_text(), FULL_S, f"the daemon on host {host.name} is not ready")
        except LabError as error:
            raise LabError(f"{error}\n{process.tail()}") from None
        took, busy = time.monotonic() - began, meter.processes_busy_s([process.pid])
        resident = meter.resident_bytes(process.pid)
        found = self._overlay.status(host)["routes"]
        if found != routes:
            raise LabError(f"host {host.name} is ready with {found} routes, expected {routes}")
        return {"routes": found, "seconds": took, "cpu_s": busy, "rss_bytes": resident}

    def agree(self) -> int:
        """Waits until both daemons know exactly the leases that stand in etcd; how many these are."""
        standing = self._standing()
        for host in self._ours:
            wanted = {subnet: ip for subnet, ip in standing.items() if ip != host.address}
            try:
                until(partial(self._knows, host, wanted), AGREE_S, f"host {host.name}: its peers are not etcd's leases")
            except LabError as error:
                differing = dict(self._peers(host).items() ^ wanted.items())
                raise LabError(
                    f"{error}: {len(differing)} differ, one is {next(iter(differing.items()), None)}"
                ) from None
        return len(standing)

    def _standing(self) -> dict[str, str]:
        text = self._beside_etcd.run(*etcd.ctl(self._etcd.url, "get", "--prefix", leases_of(OURS).decode()))
        lines = text.splitlines()
        return {
            name.rpartition("/")[2].replace("-", "/"): json.loads(value)["PublicIP"]
            for name, value in zip(lines[::2], lines[1::2], strict=True)
        }

    def _knows(self, host: Host, wanted: dict[str, str]) -> bool:
        return self._peers(host) == wanted and self._overlay.status(host)["routes"] == len(wanted)

    def _peers(self, host: Host) -> dict[str, str]:
        peers = self._overlay.status(host)["peers"]
        return {subnet: peer["public_ip"] for peer in peers for subnet in peer["subnets"]}

    def window(self, kind: str) -> dict[str, Any]:
        """The figures of one window."""
        way = Way(self._a.namespace, self._b.namespace, self._b.gateway, self._a.gateway)
        with self._changing(kind) as changed:
            before = self._read()
            with _probing(way, self.settings.seconds) as probed:
                seen = sockperf.ping_pong(way, self.settings.seconds)
            after = self._read()
            lags = [self._overlay.status(host)["loop"]["lag_s"] for host in self._ours]
        took = after.at - before.at
        figures = {
            "kind": kind,
            **seen.latencies_s,
            **probed,
            "changes_per_s": changed.get("changes", 0) / changed.get("seconds", 1.0),
            "publications_per_s": (after.publications - before.publications) / took / 2,
            "daemon_cores": (after.daemons_busy_s - before.daemons_busy_s) / took / 2,
            "etcd_cores": (after.etcd_busy_s - before.etcd_busy_s) / took,
            "machine_cores": (after.machine_busy_s - before.machine_busy_s) / took,
            "others_cores": max(0.0, after.others_busy_s - before.others_busy_s) / took,
            "loop_lag_s": max(lags),
            "rss_bytes": max(meter.resident_bytes(pid) for pid in self._pids()),
        }
        figures["disturbed"] = figures["others_cores"] > DISTURBED_CORES
        self.agree()
        return figures

    def _pids(self) -> list[int]:
        return [self._overlay.process(host).pid for host in self._ours]

    def _read(self) -> Reading:
        return Reading(
            time.monotonic(),
            meter.machine_busy_s(),
            meter.processes_busy_s(self._pids()),
            meter.processes_busy_s([self._etcd.pid]),
            others_busy_s(),
            sum(self._overlay.process(host).stderr.read_bytes().count(b"routes published") for host in self._ours),
        )

    def _writer(self, *words: str) -> list[str]:
        command = [sys.executable, "-m", "bench.scale_churn", "--endpoint", self._etcd.url.removeprefix("http://")]
        return [*command, "--count", str(self.settings.made_up), *words]

    @contextmanager
    def _changing(self, kind: str) -> Iterator[dict[str, Any]]:
        """Changes leases all the while, unless it is to be quiet; what the writer says at its end is found inside."""
        said: dict[str, Any] = {}
        if kind not in PREFIXES:
            yield said
            return
        words = self._writer(f"--rate={self.settings.rate}", PREFIXES[kind])
        writer = self._beside_etcd.start(*words, name=f"churn-{time.monotonic_ns()}")
        try:
            until(partial(_begun, writer), FILL_S, "the writer has not begun")
            yield said
        finally:
            code = writer.stop()
        if code:
            raise LabError(f"the writer ended with status {code}\n{writer.tail()}")
        said.update(json.loads(writer.stdout.read_text().splitlines()[-1]))


def _begun(writer: Process) -> bool:
    if writer.returncode is not None:
        raise LabError(f"the writer ended at once\n{writer.tail()}")
    return bool(writer.stdout.read_text())


@contextmanager
def _probing(way: Way, seconds: int) -> Iterator[dict[str, float]]:
    """Pings at fixed times meanwhile, whatever becomes of the ping before; their figures are found inside at the end.

    A ping-pong waits where an answer is late, and so counts every pause once, however long. These pings do not.
    """
    end = str(round(seconds + FULL_S))
    command = ["ping", "-n", "-i", str(PROBE_INTERVAL_S), "-w", end, "-I", way.source, way.address]
    ping = way.client.start(*command, name=f"probe-{time.monotonic_ns()}")
    said: dict[str, float] = {}
    try:
        yield said
        ping.send(signal.SIGINT)
        ping.wait(SETTLE_S)
    finally:
        ping.stop()
    text = ping.stdout.read_text()
    took, sent = sorted(float(each) / 1e3 for each in _TIME.findall(text)), _SENT.search(text)
    if sent is None or not took:
        raise LabError(f"no ping was answered\n{ping.tail()}")
    said.update(ping_p50_s=took[len(took) // 2], ping_p99_s=took[len(took) * 99 // 100], ping_max_s=took[-1])
    said["pings_lost"] = int(sent[1]) - len(took)


def measure(settings: Settings, progress: Progress) -> dict[str, Any]:
    """The document."""
    document: dict[str, Any] = {
        "schema": 1,
        "machine": surroundings.machine(),
        "commit": surroundings.commit(),
        "settings": {**asdict(settings), "link": LINK},
    }
    began = time.monotonic()
    with Lab(3) as lab, etcd.serving(lab.hosts[2].namespace, lab.hosts[2].address) as server:
        for host in lab.hosts[:2]:
            links.switch(host.namespace, "eth0", links.PROFILES[LINK])
        with Overlay(lab, "--static-subnets=", f"--etcd-endpoints={server.url}") as overlay:
            cluster = Cluster(lab, overlay, server, settings)
            progress.step(f"filling etcd with {settings.nodes} leases, starting daemons", SET_UP_S)
            cluster.fill()
            document["starts"] = cluster.start()
            document["windows"] = list(_windows(cluster, settings, progress))
            document["agreed_leases"] = cluster.agree()
            overlay.stop_all()
    document["ratios"] = ratios(scale_page.counting(document["windows"]))
    document["settings"]["took_s"] = round(time.monotonic() - began, 1)
    return document


def _windows(cluster: Cluster, settings: Settings, progress: Progress) -> Iterator[dict[str, Any]]:
    """One without changes, then pairs until enough of them were not disturbed."""

    def take(kind: str) -> dict[str, Any]:
        progress.step(f"window: {kind}", settings.seconds + BETWEEN_S)
        found = cluster.window(kind)
        if found["disturbed"]:
            progress.say(f"other programs took {found['others_cores']:.1f} processors: the window does not count")
        return found

    yield take("quiet")
    good = 0
    for _ in range(settings.pairs if settings.anyway else TRIES * settings.pairs):
        with suppress(LabError):  # then it is disturbed, and will say so
            until(_calm, 0 if settings.anyway else CALM_S, "other programs run")
        pair = [take(kind) for kind in PREFIXES]
        yield from pair
        good += not any(it["disturbed"] for it in pair)
        if good == settings.pairs:
            return


def _calm() -> bool:
    before = others_busy_s()
    time.sleep(LOOK_S)
    return others_busy_s() - before < DISTURBED_CORES * LOOK_S


def ratios(windows: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Of each latency: the median of the windows in which the changes are followed, to that of the others."""
    names = [name for name in windows[0] if name.startswith(("latency_", "ping_"))]
    found = {}
    for name in names:
        watched, elsewhere = ([it[name] for it in windows if it["kind"] == kind] for kind in PREFIXES)
        found[name] = median(watched) / median(elsewhere)
    return found


def doubled(found: dict[str, float]) -> list[str]:
    """Which of the latencies that the project holds itself to have doubled by following the changes."""
    return [name for name in HELD if found[name] >= DOUBLED]


def main(argv: Sequence[str]) -> int:
    """The sub-command; 1 where following the changes has doubled a latency that one in a hundred exceeds."""
    options = _parser().parse_args(argv)
    if lacking := ", ".join(program for program in PROGRAMS if shutil.which(program) is None):
        raise LabError(f"needs {lacking}")
    rootless.become_able("run it as root")
    settings = Settings(options.nodes, options.rate, options.seconds, options.pairs, options.anyway)
    progress = Progress(SET_UP_S + (1 + 2 * settings.pairs) * (settings.seconds + BETWEEN_S))
    with sigterm_unwinds():
        document = measure(settings, progress)
    progress.end()
    result.save(document, options.json)
    print(scale_page.summary(document))
    progress.say(f"figures are in {options.json}")
    return 1 if doubled(document["ratios"]) else 0


def _parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog="python -m bench scale",
        description="Thousands of nodes in etcd: the start, and latency while their leases change all the time.",
    )
    made.add_argument("--nodes", type=int, default=Settings.nodes, help=f"default {Settings.nodes}")
    made.add_argument("--rate", type=int, default=Settings.rate, help=f"changes a second, default {Settings.rate}")
    made.add_argument("--seconds", type=int, default=Settings.seconds, help=f"a window, default {Settings.seconds}")
    made.add_argument("--pairs", type=int, default=Settings.pairs, help=f"of windows, default {Settings.pairs}")
    made.add_argument("--anyway", action="store_true", help="do not wait or take more while other programs run")
    made.add_argument("--json", type=Path, default=RESULT, metavar="FILE", help="where the figures go")
    return made
