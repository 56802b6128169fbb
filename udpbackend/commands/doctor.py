"""The command `doctor`, which says in plain words what is wrong on this host, with the evidence and a cure.

Owns its flags and the form of its output. What there is to find, and how, is the package udpbackend.doctor's; the
daemon is asked by the client of `status`, and need not run. Changes nothing on the machine. Exit status: 0 nothing
wrong found, 1 something is wrong, 2 usage.

With --json the output is one object, to which fields are only ever added within `schema` 1:

    schema       1
    version      of this program
    node         what the daemon calls this host; null without one
    daemon       "ready", "degraded" or "starting"; null without one
    checks       how many checks there are
    findings     worst first: {check, severity, what, evidence, cure}; severity is "down", "part" or "risk"
    not_checked  {check, why}; a check may have findings and stand here as well
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from udpbackend import __version__
from udpbackend.commands.parser import Parser
from udpbackend.commands.status import ask, given
from udpbackend.commands.table import Palette, printable
from udpbackend.doctor.aside import aside
from udpbackend.doctor.examine import CHECKS, Found, examine
from udpbackend.doctor.facts import CniFolders, Facts, gather
from udpbackend.findings.finding import Finding, NotChecked, Severity, count
from udpbackend.host.netlink import Netlink
from udpbackend.observe.report import Report
from udpbackend.settings import Settings

FLAGS = {
    "subnet_file": ("FILE", "the daemon's, from which its socket is found (default /run/flannel/subnet.env)"),
    "status_socket": ("FILE", "the daemon's status socket"),
    "kube_subnet_mgr": ("", "look at Kubernetes, though no daemon says so"),
    "kube_api_url": ("URL", "of its API server (default: what a pod finds)"),
    "kubeconfig_file": ("FILE", "or a kubeconfig, best the daemon's own"),
    "kube_annotation_prefix": ("TEXT", "the daemon's"),
    "node_name": ("NAME", "this host's name in Kubernetes"),
}
"""Fields of Settings that matter here: each is read from the flag, or from the variable that the daemon reads."""

COLOURS: dict[Severity, str] = {"down": "bad", "part": "bad", "risk": "warn"}


def run(argv: Sequence[str]) -> int:
    """Looks, prints what it has found, and gives the exit status."""
    options = _parser().parse_args(argv)
    settings = Settings.read(given(vars(options), FLAGS, os.environ))
    facts, found = asyncio.run(_examine(settings, _folders(options, os.environ)))
    if options.json:
        print(as_json(facts, found))
    else:
        print("\n".join(as_text(found, Palette.choose(options.color, sys.stdout))))
    return int(any(isinstance(it.result, Finding) for it in found))


async def _examine(settings: Settings, cni: CniFolders) -> tuple[Facts, list[Found]]:
    @aside
    def asked() -> Report:
        return ask(settings.status_socket)

    async with Netlink() as netlink:
        facts = await gather(settings, cni, netlink, asked)
        return facts, await examine(facts)


def as_text(found: Sequence[Found], palette: Palette, checks: int = len(CHECKS)) -> list[str]:
    """Lines for people."""
    lines = []
    findings = [it.result for it in found if isinstance(it.result, Finding)]
    for it in findings:
        word = palette.paint(f"{it.severity.upper():5}", COLOURS[it.severity])
        lines += [f"{word} {printable(it.what)}", f"  evidence: {printable(it.evidence)}", f"  cure: {it.cure}", ""]
    gaps = [it for it in found if isinstance(it.result, NotChecked)]
    lines += [
        f"not checked: {it.check}: {printable(it.result.why)}" for it in gaps if isinstance(it.result, NotChecked)
    ]
    lines += [""] * bool(gaps)
    sum_up = count(len(findings), "finding") if findings else "nothing wrong found"
    looked = f"({count(checks, 'check')}, {len({it.check for it in gaps})} not checked)"
    return [*lines, palette.paint(sum_up, "bad" if findings else "good") + f" {looked}"]


def as_json(facts: Facts, found: Sequence[Found], checks: int = len(CHECKS)) -> str:
    """The same for programs."""
    report = facts.report
    document = {
        "schema": 1,
        "version": __version__,
        "node": report and report.node,
        "daemon": report and report.verdict.state,
        "checks": checks,
        "findings": [_row(it) for it in found if isinstance(it.result, Finding)],
        "not_checked": [_row(it) for it in found if isinstance(it.result, NotChecked)],
    }
    return msgspec.json.format(msgspec.json.encode(document), indent=2).decode()


def _row(found: Found) -> dict[str, str]:
    return {"check": found.check, **msgspec.structs.asdict(found.result)}


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="udp-backend doctor",
        description="Says what is wrong on this host, with the evidence and a cure. Works without a daemon too, and "
        "changes nothing. A flag that is not given is read from the environment: FLANNELD_SUBNET_FILE for "
        "--subnet-file.",
        epilog="Exit status: 0 nothing wrong found, 1 something is wrong, 2 usage.",
    )
    add = parser.add_argument
    add("-json", "--json", action="store_true", help="for programs")
    add("-color", "--color", choices=("auto", "always", "never"), default="auto", help="auto: on a terminal")
    for field, (metavar, words) in FLAGS.items():
        flag = field.replace("_", "-")
        if metavar:
            add(f"-{flag}", f"--{flag}", metavar=metavar, help=words)
        else:
            add(f"-{flag}", f"--{flag}", action="store_const", const="true", help=words)
    add("-cni-conf-dir", "--cni-conf-dir", metavar="DIR", help="the runtime's (default /etc/cni/net.d)")
    add("-cni-bin-dir", "--cni-bin-dir", metavar="DIR", help="likewise, several by colons (default /opt/cni/bin)")
    return parser


def _folders(options: argparse.Namespace, environ: Mapping[str, str]) -> CniFolders:
    conf = options.cni_conf_dir or environ.get("FLANNELD_CNI_CONF_DIR")
    programs = options.cni_bin_dir or environ.get("FLANNELD_CNI_BIN_DIR") or "/opt/cni/bin"
    return CniFolders(
        conf=Path(conf or "/etc/cni/net.d"),
        programs=tuple(Path(it) for it in programs.split(":") if it),
        named=bool(conf),
    )
