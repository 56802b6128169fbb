"""The front door: what is run for an argument list, and how the program ends."""

import os
import subprocess
import sys
from types import SimpleNamespace

import pytest

from udpbackend import __version__, cli
from udpbackend.errors import ConfigError, UdpBackendError, UsageError

REGISTRY = "--static-subnets=/etc/nodes.json"


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch):
    for name in [name for name in os.environ if name.startswith("FLANNELD_")]:
        monkeypatch.delenv(name)


@pytest.fixture
def install(monkeypatch):
    """Puts a module with the given `run` in place of one of ours."""

    def put(name, run):
        monkeypatch.setitem(sys.modules, f"udpbackend.{name}", SimpleNamespace(run=run))

    return put


def failing(error):
    def run(_):
        raise error

    return run


def test_without_a_command_the_daemon_runs(install):
    seen = []
    install("launch", lambda settings: seen.append(settings) or 7)
    assert cli.main([REGISTRY, "--iface=eth0"]) == 7
    assert seen[0].iface == ("eth0",)


def test_reload_takes_the_daemons_flags(monkeypatch, capsys):
    seen = []
    launch = SimpleNamespace(reload=lambda settings: seen.append(settings) or 5)
    monkeypatch.setitem(sys.modules, "udpbackend.launch", launch)
    assert cli.main(["reload", REGISTRY, "--iface=eth0"]) == 5
    assert seen[0].iface == ("eth0",)
    assert cli.main(["reload", "--no-such-flag"]) == 2
    assert "--no-such-flag" in capsys.readouterr().err


def test_the_arguments_are_the_programs_by_default(install, monkeypatch):
    install("launch", lambda _: 3)
    monkeypatch.setattr(sys, "argv", ["udp-backend", REGISTRY])
    assert cli.main() == 3


@pytest.mark.parametrize("name", [name for name in cli.COMMANDS if name != cli.RELOAD])
def test_a_command_gets_the_rest(install, name):
    seen = []
    install(f"commands.{name.replace('-', '_')}", lambda argv: seen.append(argv) or 4)
    assert cli.main([name, "--json", "x"]) == 4
    assert seen == [["--json", "x"]]


@pytest.mark.parametrize(
    ("word", "hint"),
    [
        ("statsu", "did you mean status?"),
        ("clean-up", "did you mean cleanup?"),
        ("uninstall", "expected reload or status"),
        ("zzz", "expected reload or status"),
        ("", ""),
    ],
)
def test_an_unknown_command_is_a_usage_error(capsys, word, hint):
    assert cli.main([word]) == 2
    err = capsys.readouterr().err
    assert err.startswith(f"udp-backend: unknown command {word!r}")
    assert hint in err


@pytest.mark.parametrize(("error", "status"), [(ConfigError, 1), (UsageError, 2), (UdpBackendError, 1)])
def test_our_errors_are_one_line_and_a_status(install, capsys, error, status):
    install("launch", failing(error("Network: is\n  wrong")))
    assert cli.main([REGISTRY]) == status
    assert capsys.readouterr() == ("", "udp-backend: Network: is wrong\n")


def test_other_errors_are_not_hidden(install):
    install("launch", failing(ZeroDivisionError()))
    with pytest.raises(ZeroDivisionError):
        cli.main([REGISTRY])


def test_an_interrupt_ends_as_a_shell_expects(install):
    install("launch", failing(KeyboardInterrupt()))
    assert cli.main([REGISTRY]) == 130


def test_help_goes_to_stdout_and_version_to_stderr(capsys):
    assert cli.main(["--help"]) == 0
    out, err = capsys.readouterr()
    assert "EXAMPLES" in out
    assert "cleanup" in out
    assert err == ""
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr() == ("", f"{__version__}\n")


def test_a_bad_variable_ends_the_program(monkeypatch, capsys):
    monkeypatch.setenv("FLANNELD_ETCD_ENDPOINTS", "192.0.2.1")
    assert cli.main([REGISTRY]) == 2
    assert "FLANNELD_ETCD_ENDPOINTS: invalid value '192.0.2.1'" in capsys.readouterr().err


def test_a_closed_pipe_is_quiet():
    reader, writer = os.pipe()
    os.close(reader)
    environ = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    with os.fdopen(writer, "wb") as closed:
        ended = subprocess.run(
            [sys.executable, "-m", "udpbackend", "--help"],
            stdout=closed,
            stderr=subprocess.PIPE,
            env=environ,
            check=False,
        )
    assert (ended.returncode, ended.stderr) == (141, b"")
