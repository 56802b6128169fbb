"""A service manager of the smallest kind: starts one program, keeps its fds, and starts it again when it dies.

Owns the program, the notification socket and the fd store, as systemd has them (sd_notify(3), sd_listen_fds(3)):
FDSTORE, FDNAME, FDPOLL, FDSTOREREMOVE, BARRIER, MAINPID. Without room (`--fds 0`) it keeps nothing, as a container's
runtime does. Must not know what the program is.

    python -m bench.lab.supervisor [--fds 64] DIRECTORY PROGRAM [ARGUMENT ...]

DIRECTORY gets `pid` (of the program now), `stored` (names of the fds, a line each) and `starts` (how many there were).
SIGTERM stops the program. SIGUSR1 restarts it as `systemctl restart` does: a stop, and a start with what is stored.
SIGHUP runs it with `reload` before its arguments, as ExecReload does.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import select
import signal
import socket
import sys
from contextlib import suppress
from pathlib import Path

BUFFER_BYTES = 8192
FDS_MAX = 253
"""SCM_MAX_FD: what one message can carry."""


LIBC = ctypes.CDLL(None)
PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h
KCMP = {"x86_64": 312, "aarch64": 272}  # its number; asm/unistd.h
KCMP_FILE = 0  # linux/kcmp.h


def _same(one: int, other: int) -> bool:
    """Whether two fds are one open file, which is then stored once."""
    pid = os.getpid()
    return bool(LIBC.syscall(KCMP[os.uname().machine], pid, pid, KCMP_FILE, one, other) == 0)


class Supervisor:
    """One program, again and again."""

    def __init__(self, directory: Path, command: list[str], room: int) -> None:
        self._directory = directory
        self._command = command
        self._room = room
        self._stored: list[tuple[str, int, bool]] = []
        self._stopping = False
        self._pid = 0
        self._starts = 0
        self._notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        path = directory / "notify"
        path.unlink(missing_ok=True)
        self._notify.bind(str(path))
        self._woken, wake = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(wake)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGTERM, lambda *_: self._stop())
        signal.signal(signal.SIGHUP, lambda *_: self._reload())
        signal.signal(signal.SIGUSR1, lambda *_: self._end())
        LIBC.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)  # a program that MAINPID names need not be our own child

    def run(self) -> int:
        """Until SIGTERM; the program's last exit status."""
        self._start()
        while True:
            ready = select.select([self._woken, self._notify.fileno()], [], [], 1.0)[0]
            if self._notify.fileno() in ready:
                self._listen()
            if self._woken in ready:
                os.read(self._woken, 512)
            self._drop_broken()
            status = self._ended()
            if status is None:
                continue
            self._listen()
            if self._stopping:
                return status
            self._start()

    def _reload(self) -> None:
        if os.fork() == 0:
            try:
                self._become([self._command[0], "reload", *self._command[1:]])
            finally:
                os._exit(127)

    def _start(self) -> None:
        self._starts += 1
        pid = os.fork()
        if pid == 0:
            try:
                self._become(self._command, with_fds=True)
            finally:
                os._exit(127)
        self._pid = pid
        self._tell("starts", str(self._starts))
        self._tell("pid", str(pid))

    def _become(self, command: list[str], *, with_fds: bool = False) -> None:
        signal.set_wakeup_fd(-1)
        environ = {**os.environ, "NOTIFY_SOCKET": str(self._directory / "notify")}
        if self._stored and with_fds:
            high = [os.dup2(fd, 300 + i, inheritable=False) for i, (_, fd, _) in enumerate(self._stored)]
            for i, fd in enumerate(high):
                os.dup2(fd, 3 + i, inheritable=True)
            names = ":".join(name for name, _, _ in self._stored)
            environ |= {"LISTEN_FDS": str(len(high)), "LISTEN_PID": str(os.getpid()), "LISTEN_FDNAMES": names}
        os.execvpe(command[0], command, environ)  # noqa: S606 that is its work

    def _ended(self) -> int | None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return 0
            if pid == 0:
                return None
            if pid == self._pid:
                return os.waitstatus_to_exitcode(status)

    def _listen(self) -> None:
        with suppress(BlockingIOError):
            while True:
                data, fds, _, _ = socket.recv_fds(self._notify, BUFFER_BYTES, FDS_MAX)
                for fd in fds:
                    os.set_inheritable(fd, False)  # noqa: FBT003 positional only
                self._heard(dict(line.partition("=")[::2] for line in data.decode().splitlines()), fds)

    def _heard(self, said: dict[str, str], fds: list[int]) -> None:
        name = said.get("FDNAME", "stored")
        if "FDSTORE" in said:
            for fd in fds:
                if len(self._stored) < self._room and not any(_same(fd, it) for _, it, _ in self._stored):
                    self._stored.append((name, fd, said.get("FDPOLL") != "0"))
                else:
                    os.close(fd)
        elif "FDSTOREREMOVE" in said:
            for entry in [entry for entry in self._stored if entry[0] == name]:
                self._stored.remove(entry)
                os.close(entry[1])
        else:  # BARRIER among others: what came along is closed
            for fd in fds:
                os.close(fd)
        if said.get("MAINPID", "").isdecimal():
            self._pid = int(said["MAINPID"])
            self._tell("pid", said["MAINPID"])
        self._tell("stored", "\n".join(sorted(entry[0] for entry in self._stored)))

    def _drop_broken(self) -> None:
        """As systemd does: an fd with an error is of no use, unless it was stored with FDPOLL=0."""
        poll = select.poll()
        for _, fd, watched in self._stored:
            if watched:
                poll.register(fd, 0)
        broken = {fd for fd, events in poll.poll(0) if events & (select.POLLERR | select.POLLHUP)}
        for entry in [entry for entry in self._stored if entry[1] in broken]:
            self._stored.remove(entry)
            os.close(entry[1])

    def _stop(self) -> None:
        self._stopping = True
        self._end()

    def _end(self) -> None:
        with suppress(ProcessLookupError):
            os.kill(self._pid, signal.SIGTERM)

    def _tell(self, name: str, text: str) -> None:
        new = self._directory / f".{name}"
        new.write_text(text + "\n")
        new.replace(self._directory / name)


def main() -> int:
    """The program."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--fds", type=int, default=64)
    parser.add_argument("directory", type=Path)
    parser.add_argument("command", nargs=argparse.REMAINDER)
    options = parser.parse_args()
    return Supervisor(options.directory, options.command, options.fds).run()


if __name__ == "__main__":
    sys.exit(main())
