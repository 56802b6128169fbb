"""State files and the running of other plugins, where a failing or slow system call decides."""

import errno
import os
import sys
from pathlib import Path

import pytest

from udpbackend.cni import invoke, state
from udpbackend.cni.errors import PluginError


@pytest.fixture
def calls(monkeypatch):
    """What is made durable and put in place, in order."""
    seen = []
    fsync, replace = os.fsync, os.replace

    def note(name, call):
        def noted(*args):
            seen.append(
                (name, *(str(Path(f"/proc/self/fd/{it}").readlink()) if isinstance(it, int) else it for it in args))
            )
            return call(*args)

        return noted

    monkeypatch.setattr(os, "fsync", note("fsync", fsync))
    monkeypatch.setattr(os, "replace", note("replace", replace))
    return seen


def test_what_is_kept_is_on_the_disk_before_it_has_its_name_and_the_name_after(tmp_path, calls):
    folder = str(tmp_path / "a" / "b")
    state.save(folder, "c1", b"{}")
    temp = f"{folder}/.new-{os.getpid()}"
    assert calls == [("fsync", temp), ("replace", temp, f"{folder}/c1"), ("fsync", folder)]
    assert state.load(folder, "c1") == b"{}"
    assert os.listdir(folder) == ["c1"]  # noqa: PTH208 the name alone


def test_a_full_disk_leaves_what_was_kept(tmp_path, monkeypatch):
    state.save(str(tmp_path), "c1", b"old")

    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        state.save(str(tmp_path), "c1", b"new")
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"old"]


def test_what_a_killed_plugin_left_is_in_nobodys_way(tmp_path):
    (tmp_path / f".new-{os.getpid()}").write_bytes(b"half of something longer")
    state.save(str(tmp_path), "c1", b"{}")
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"{}"]


def test_nothing_kept_is_none_and_removing_it_is_no_error(tmp_path):
    assert state.load(str(tmp_path / "none"), "c1") is None
    state.remove(str(tmp_path / "none"), "c1")


@pytest.fixture
def busy(tmp_path, monkeypatch):
    """A plugin that cannot be run for so many tries, since somebody writes it."""
    program = tmp_path / "bridge"
    program.write_text("#!/bin/sh\ncat\n")
    program.chmod(0o755)
    spawn, waited = os.posix_spawn, []

    def make(times):
        def busy_spawn(*args, **kwargs):
            if len(waited) < times:
                raise OSError(errno.ETXTBSY, "Text file busy")
            return spawn(*args, **kwargs)

        monkeypatch.setattr(os, "posix_spawn", busy_spawn)
        monkeypatch.setattr("time.sleep", waited.append)
        return str(program), waited

    return make


def test_a_plugin_that_is_just_being_installed_is_waited_for(busy):
    program, waited = busy(invoke.BUSY_TRIES - 1)
    assert invoke.run(program, b"conf") == b"conf"
    assert waited == [invoke.BUSY_WAIT_S] * (invoke.BUSY_TRIES - 1)


def test_a_plugin_that_stays_busy_is_an_error(busy):
    program, waited = busy(invoke.BUSY_TRIES)
    with pytest.raises(PluginError, match=f"fork/exec {program}: text file busy"):
        invoke.run(program, b"")
    assert len(waited) == invoke.BUSY_TRIES - 1


def test_nothing_stays_open(tmp_path):
    before = sorted(os.listdir("/proc/self/fd"))  # noqa: PTH208 the names alone
    assert invoke.run(sys.executable, b"print(1)") == b"1\n"
    with pytest.raises(PluginError):
        invoke.run(str(tmp_path / "none"), b"")
    assert sorted(os.listdir("/proc/self/fd")) == before  # noqa: PTH208 likewise
