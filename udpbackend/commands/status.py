"""The command `status`, which tells how the daemon of this host fares.

Asks over the status socket and knows nothing of the daemon but its answer. Exit status: 0 ready, 1 degraded or
starting, 2 usage, 3 no daemon answers. Imports only what it needs, so that it starts at once beside a busy daemon.
"""

from __future__ import annotations

import argparse
import http.client
import os
import shutil
import socket
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import msgspec

from udpbackend.commands.parser import Parser
from udpbackend.commands.status_change import compare
from udpbackend.commands.status_text import PEERS_SHOWN, render
from udpbackend.commands.table import Palette
from udpbackend.errors import HostError
from udpbackend.gojson import UNREADABLE
from udpbackend.observe.report import Report
from udpbackend.settings import Given, Settings

TIMEOUT_S = 10.0
"""Longer than the daemon allows itself."""
WATCH_S = 2.0
PEERS_WATCHED = 1000
"""Of so many the busiest are looked for again and again; all of 65,536 would cost the daemon half a second."""
WATCH_MIN_S, WATCH_MAX_S = 0.1, 86400.0

READY, NOT_READY = 0, 1

REDRAW, CLEAR_LINE, CLEAR_BELOW = "\x1b[H", "\x1b[K", "\x1b[J"
CLEAR_ALL, WRAP_OFF, WRAP_ON = "\x1b[2J", "\x1b[?7l", "\x1b[?7h"


class NoAnswerError(HostError):
    """No daemon answers on the socket."""

    status = 3


def run(argv: Sequence[str]) -> int:
    """Prints the status once, or again and again with --watch, and gives the exit status."""
    options = _parser().parse_args(argv)
    path = _socket_path(options, os.environ)
    palette = Palette.choose(options.color, sys.stdout)
    if options.watch is not None:
        return _watch(path, options, palette)
    lines, status, _ = _ask(path, options.output, palette)
    sys.stdout.write("\n".join(lines) + "\n")
    return status


def fetch(path: Path, *, peers: int | None = None) -> bytes:
    """The daemon's status document as it stands on the wire; `peers`: no more of them."""
    connection = _UnixConnection(path)
    try:
        connection.request("GET", "/status" if peers is None else f"/status?peers={peers}")
        response = connection.getresponse()
        body = response.read()
    except (FileNotFoundError, ConnectionRefusedError) as error:
        raise NoAnswerError(f"not running: nobody listens on {path}") from error
    except PermissionError as error:
        raise NoAnswerError(f"cannot ask on {path}: permission denied, run it as root") from error
    except (OSError, http.client.HTTPException) as error:
        raise NoAnswerError(f"the daemon on {path} does not answer: {str(error) or type(error).__name__}") from error
    finally:
        connection.close()
    if response.status != http.HTTPStatus.OK:
        raise NoAnswerError(f"the daemon on {path} cannot answer: {response.status} {response.reason}, see its log")
    return body


def ask(path: Path) -> Report:
    """The same as a value. Raises NoAnswerError, for a daemon of another version too."""
    return _read(path, fetch(path))


def _read(path: Path, body: bytes) -> Report:
    try:
        return msgspec.json.decode(body, type=Report)
    except UNREADABLE as error:
        raise NoAnswerError(f"the daemon on {path} is of another version: {error}") from error


def _ask(
    path: Path, output: str, palette: Palette, *, watching: bool = False, before: Report | None = None
) -> tuple[list[str], int, Report]:
    """Lines, the exit status, and the report, to compare the next one with."""
    body = fetch(path, peers=(PEERS_WATCHED if watching else PEERS_SHOWN) if output == "text" else None)
    report = _read(path, body)
    status = READY if report.verdict.state == "ready" else NOT_READY
    if output == "json":
        return msgspec.json.format(body, indent=2).decode().splitlines(), status, report
    change = compare(before, report) if before else None
    return render(report, wide=output == "wide", palette=palette, change=change), status, report


def _watch(path: Path, options: argparse.Namespace, palette: Palette) -> int:
    """Until Ctrl-C. A daemon that does not answer is shown and waited for: watching a restart is what this is for."""
    terminal = sys.stdout.isatty() and options.output != "json"
    before: Report | None = None
    with _screen(terminal):
        try:
            while True:
                try:
                    lines, _, before = _ask(path, options.output, palette, watching=True, before=before)
                except NoAnswerError as error:
                    before = None
                    lines = [palette.paint(str(error), "bad")]
                sys.stdout.write(_in_place(lines) if terminal else "\n".join([*lines, "", ""]))
                sys.stdout.flush()
                time.sleep(options.watch)
        except KeyboardInterrupt:
            return READY


@contextmanager
def _screen(terminal: bool) -> Iterator[None]:
    """A cleared terminal that cuts long lines, so that a redraw meets the same lines again."""
    if terminal:
        sys.stdout.write(WRAP_OFF + CLEAR_ALL)
    try:
        yield
    finally:
        if terminal:
            sys.stdout.write(WRAP_ON + "\n")


def _in_place(lines: list[str]) -> str:
    shown = lines[: max(1, shutil.get_terminal_size().lines - 1)]
    return REDRAW + "".join(f"{line}{CLEAR_LINE}\n" for line in shown) + CLEAR_BELOW


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=TIMEOUT_S)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(TIMEOUT_S)
        self.sock.connect(str(self._path))


def _socket_path(options: argparse.Namespace, environ: Mapping[str, str]) -> Path:
    """Where the daemon answers: found from the same flags and environment, by the same rule as its own."""
    return Settings.read(given(vars(options), ("subnet_file", "status_socket"), environ)).status_socket


def given(options: Mapping[str, str | None], fields: Iterable[str], environ: Mapping[str, str]) -> dict[str, Given]:
    """The texts for those fields of Settings, from flags or else from the variables that the daemon reads."""
    found = {}
    for field in fields:
        variable, text = "FLANNELD_" + field.upper(), options[field]
        if text is not None:
            found[field] = Given(f"--{field.replace('_', '-')}", (text,))
        elif environ.get(variable):
            found[field] = Given(variable, (environ[variable],))
    return found


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="udp-backend status",
        description="Ask the running daemon how it fares.",
        epilog="Exit status: 0 ready, 1 degraded or starting, 2 usage, 3 no daemon answers.",
    )
    add = parser.add_argument
    add("-o", "--output", choices=("text", "wide", "json"), default="text", help="form of the output")
    add("-w", "--watch", nargs="?", type=_seconds, const=WATCH_S, metavar="SECONDS", help="show it again and again")
    add("-subnet-file", "--subnet-file", metavar="FILE", help="the daemon's, from which its socket is found")
    add("-status-socket", "--status-socket", metavar="FILE", help="the daemon's status socket")
    add("-color", "--color", choices=("auto", "always", "never"), default="auto", help="auto: on a terminal")
    return parser


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not WATCH_MIN_S <= value <= WATCH_MAX_S:
        raise argparse.ArgumentTypeError(f"{text!r}: expected {WATCH_MIN_S:g} to {WATCH_MAX_S:g} seconds")
    return value
