"""`python -m bench`: what an overlay costs against kernel VXLAN, measured in network namespaces on this machine.

Owns the command line, the order of a run and the exit status: 0 all well, 1 something did not work or a figure has no
proof, 2 usage, 130 Ctrl-C. Progress goes to stderr, the table to stdout, everything to a JSON file.
"""

import argparse
import os
import sys
import time
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from bench import (
    congestion,
    docs,
    links,
    measure,
    plan,
    profile,
    restart,
    result,
    scale,
    show,
    slow_peer,
    soak,
    surroundings,
    systems,
    workloads,
)
from bench.lab import hogs, rootless
from bench.lab.cleanup import sigterm_unwinds
from bench.lab.wait import LabError
from bench.progress import Progress, clock
from bench.systems.udp import Udp, UdpBefore

RESULTS = surroundings.ROOT / "bench" / "results"
BUSY = 0.25
"""Load per processor before a run from which it is not alone."""


def parser() -> argparse.ArgumentParser:
    """The command line; its help lists everything there is to choose from."""
    made = argparse.ArgumentParser(
        prog="python -m bench",
        description="Measure overlays in turn with kernel VXLAN and write tables and a JSON file.",
        epilog=_choices(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    which = made.add_mutually_exclusive_group()
    which.add_argument("--quick", action="store_true", help="the core ratios, in at most 100 seconds")
    which.add_argument("--floors", action="store_true", help="the rows that a floor is set for, in six minutes")
    which.add_argument("--busy", action="store_true", help="beside other work on every core, in twelve minutes")
    which.add_argument("--all", action="store_true", help="every combination; takes hours")
    made.add_argument("--systems", type=_names(systems.BY_NAME), help="only these, separated by commas")
    made.add_argument("--links", type=_names(links.PROFILES), help="likewise")
    made.add_argument("--paths", type=_names(systems.PATHS), help="likewise")
    made.add_argument("--workloads", type=_names(workloads.BY_NAME), help="likewise")
    made.add_argument("--mtu", type=int, action="append", help="of the underlay: 1500, 9000; may be repeated")
    made.add_argument(
        "--through-daemon",
        action="store_true",
        help="vxlan and host-gw also as our daemon sets them up, in turn with these; up to half as long again",
    )
    made.add_argument(
        "--before",
        action="store_true",
        help="udp also as another version of it was (BEFORE=path of its udp-backend), in turn with this one",
    )
    made.add_argument("--cc", choices=congestion.CHOICES, default="cubic", help="congestion control (default cubic)")
    made.add_argument("--pairs", type=_positive, help="runs of each system (default 5, quick 3)")
    made.add_argument("--seconds", type=_positive, help="of each run")
    made.add_argument("--json", type=Path, metavar="FILE", help="where the figures go")
    return made


def chosen(options: argparse.Namespace) -> plan.Plan:
    """The plan that the options ask for; naming any system, link, path, workload or MTU makes one of all of these."""
    picked = {name: getattr(options, name) for name in ("systems", "links", "paths", "workloads", "mtu")}
    named = next((name for name in ("quick", "floors", "busy", "all") if getattr(options, name)), None)
    if named and (also := next((name for name, value in picked.items() if value), None)):
        parser().error(f"--{also}: not allowed with --{named}, which has its own")
    if options.quick:
        made = plan.quick()
    elif options.floors:
        made = plan.floors()
    elif options.busy:
        made = plan.busy(hogs.cores())
    elif options.all:
        made = plan.everything()
    elif not any(picked.values()):
        made = plan.full()
    else:
        made = plan.combined(
            options.systems or ("vxlan", "udp"),
            options.links or ("pass-through", "wire"),
            options.paths or ("host-host",),
            options.workloads or ("tcp-1", "tcp-4", "udp-64", "pingpong"),
            options.mtu or (1500,),
        )
    if options.through_daemon:
        if not made.systems().keys() & systems.THROUGH_DAEMON.keys():
            names = " or ".join(systems.THROUGH_DAEMON)
            parser().error(f"--through-daemon: expected {names} among the systems, got {', '.join(made.systems())}")
        made = made.through_daemon()
    if options.before:
        made = made.beside({Udp.name: UdpBefore.name})
    return replace(made, cc=options.cc, pairs=options.pairs or made.pairs, seconds=options.seconds or made.seconds)


def carry_out(asked: plan.Plan, path: Path) -> result.Document:
    """Measures, prints and writes. What was measured before an interruption or an error goes into a file of its own."""
    missing = measure.skipped(asked.systems())
    for name, why in missing.items():
        print(f"SKIPPED {name}: {why}", file=sys.stderr)
    able = asked.without(tuple(missing))
    document = result.Document(surroundings.machine(), surroundings.commit(), skipped=missing)
    document.systems = {
        name: {"what": it.what, "version": it.version(), "encrypted": it.encrypted, "against": it.against}
        for name, it in able.systems().items()
    }
    progress = Progress(able.cost_s())
    progress.say(f"{asked.pairs} runs each of {asked.seconds} s; about {clock(able.cost_s())}")
    if (busy := surroundings.load()[0]) > BUSY * (os.cpu_count() or 1):
        progress.say(f"other programs run here (load {busy}): figures will be noisy, and CPU counts them, too")
    began = time.monotonic()
    with ExitStack() as stack:
        stack.callback(_finish, document, path, progress)
        cc = stack.enter_context(congestion.permitted(asked.cc))
        document.settings = {"pairs": asked.pairs, "seconds": asked.seconds, "cc": cc, "reference": systems.REFERENCE}
        measure.Campaign(able, document, progress, cc).run()
        document.settings["took_s"] = round(time.monotonic() - began, 1)
    return document


def _finish(document: result.Document, path: Path, progress: Progress) -> None:
    progress.end()
    if not document.series:
        return
    written = document.as_json(systems.REFERENCE)
    if "took_s" not in document.settings:
        path = path.with_suffix(f".partial{path.suffix}")
    result.save(written, path)
    print(show.table(written, systems.REFERENCE), show.LEGEND, sep="\n\n")
    if agreement := show.agreement(written):
        print(f"\n{agreement}")
    for complaint in document.complaints:
        print(f"NO PROOF: {complaint}")
    progress.say(f"figures are in {path}")


COMMANDS = {
    "docs": docs.main,
    "profile": profile.main,
    "restart": restart.main,
    "scale": scale.main,
    "slow-peer": slow_peer.main,
    "soak": soak.main,
}


def main(argv: Sequence[str] | None = None) -> int:
    """The program."""
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        if words and words[0].removeprefix("--") in COMMANDS:  # `make bench ARGS=--restart` reads like the others
            return COMMANDS[words[0].removeprefix("--")](words[1:])
        options = parser().parse_args(words)
        rootless.become_able("run it as root")
        with sigterm_unwinds():
            name = next((it for it in ("quick", "floors", "busy") if getattr(options, it)), "full")
            path = options.json or RESULTS / f"{name}.json"
            return 1 if carry_out(chosen(options), path).complaints else 0
    except LabError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("bench: interrupted; everything is taken down", file=sys.stderr)
        return 130


def _choices() -> str:
    lines = []
    for title, named in (
        (
            "other commands",
            {
                "docs [JSON]": "render docs/benchmarks.md; `make bench-docs` brings what that needs",
                "profile": "what the processors do while a stream passes; see its --help",
                "restart": "what upgrades, kills and restarts cost packets and connections; see its --help",
                "scale": "thousands of nodes in etcd: start, and latency while their leases change; see its --help",
                "slow-peer": "what one peer that takes less than it is sent costs the others; see its --help",
                "soak": "whether a daemon grows by an hour of load; see its --help",
            },
        ),
        ("systems", {name: system.what for name, system in systems.BY_NAME.items()}),
        ("links", {name: link.meaning for name, link in links.PROFILES.items()}),
        ("paths", systems.PATHS),
        ("workloads", {name: workload.what for name, workload in workloads.BY_NAME.items()}),
    ):
        lines += [f"{title}:", *(f"  {name:<20} {what}" for name, what in named.items()), ""]
    return "\n".join(lines)


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("expected at least 1")
    return number


class _names:  # noqa: N801  (a converter, used like a function)
    """Reads a list of names separated by commas."""

    def __init__(self, known: Iterable[str]) -> None:
        self._known = list(known)

    def __call__(self, text: str) -> tuple[str, ...]:
        names = tuple(name for name in text.split(",") if name)
        for name in names:
            if name not in self._known:
                raise argparse.ArgumentTypeError(f"unknown {name!r}, expected some of {', '.join(self._known)}")
        return names


if __name__ == "__main__":
    sys.exit(main())
