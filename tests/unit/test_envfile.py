"""The subnet file: its exact text, writing it in two steps, reading it back."""

import os
import stat
from pathlib import Path

import pytest

from udpbackend.errors import HostError
from udpbackend.model import Prefix
from udpbackend.subnets.envfile import SubnetEnv, read_env, render

TEXT = "FLANNEL_NETWORK=10.5.0.0/16\nFLANNEL_SUBNET=10.5.3.1/24\nFLANNEL_MTU=1472\nFLANNEL_IPMASQ=false\n"


@pytest.fixture
def strict_umask():
    before = os.umask(0o077)
    yield
    os.umask(before)


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


def test_the_text_is_flannels():
    assert render(Prefix.parse("10.5.0.0/16"), Prefix.parse("10.5.3.0/24"), 1472, ip_masq=False) == TEXT
    assert render(Prefix.parse("10.5.0.0/16"), Prefix.parse("10.5.3.0/24"), 9, ip_masq=True).endswith(
        "FLANNEL_MTU=9\nFLANNEL_IPMASQ=true\n"
    )


def test_ipv6_stands_between_ipv4_and_the_rest():
    ipv6 = Prefix.parse("fc00::/48"), Prefix.parse("fc00:0:0:39::/64")
    found = render(Prefix.parse("10.5.0.0/16"), Prefix.parse("10.5.3.0/24"), 1472, ip_masq=False, ipv6=ipv6)
    lines = TEXT.splitlines()
    assert found.splitlines() == [
        *lines[:2],
        "FLANNEL_IPV6_NETWORK=fc00::/48",
        "FLANNEL_IPV6_SUBNET=fc00:0:0:39::1/64",
        *lines[2:],
    ]


def test_prepare_then_commit(tmp_path, strict_umask):
    path = tmp_path / "run" / "flannel" / "subnet.env"
    env = SubnetEnv.prepare(path)
    assert not path.exists()
    env.commit(TEXT)
    assert path.read_text() == TEXT
    assert (mode(path), mode(path.parent), mode(path.parent.parent)) == (0o644, 0o755, 0o755)
    assert list(path.parent.iterdir()) == [path]
    env.abort()
    assert path.read_text() == TEXT


def test_commit_replaces_and_never_writes_into_the_old_file(tmp_path):
    path = tmp_path / "subnet.env"
    path.write_text("old")
    path.chmod(0o600)
    with path.open() as held:
        SubnetEnv.prepare(path).commit(TEXT)
        assert held.read() == "old"
    assert path.read_text() == TEXT
    assert mode(path) == 0o644


def test_abort_leaves_what_was_there(tmp_path):
    path = tmp_path / "subnet.env"
    path.write_text("old")
    env = SubnetEnv.prepare(path)
    env.abort()
    env.abort()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_abort_removes_only_directories_we_made(tmp_path):
    (tmp_path / "a").mkdir()
    SubnetEnv.prepare(tmp_path / "a" / "b" / "c" / "subnet.env").abort()
    assert list(tmp_path.iterdir()) == [tmp_path / "a"]
    assert list((tmp_path / "a").iterdir()) == []
    env = SubnetEnv.prepare(tmp_path / "a" / "b" / "subnet.env")
    (tmp_path / "a" / "b" / "other").touch()
    env.abort()
    assert list((tmp_path / "a" / "b").iterdir()) == [tmp_path / "a" / "b" / "other"]


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("file/subnet.env", "Not a directory"),
        ("file/sub/subnet.env", "Not a directory"),
        (".", "it is a directory"),
        ("x" * 300, "File name too long"),
        ("x" * 300 + "/subnet.env", "File name too long"),
    ],
)
def test_what_cannot_be_written_is_said_when_preparing(tmp_path, name, reason):
    (tmp_path / "file").touch()
    with pytest.raises(HostError) as caught:
        SubnetEnv.prepare(tmp_path / name)
    assert str(caught.value).startswith(f"cannot write the subnet file {tmp_path / name}: {reason}")
    assert list(tmp_path.iterdir()) == [tmp_path / "file"]


def test_a_full_disk_shows_when_preparing(tmp_path, monkeypatch):
    def full(fd, data, offset):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(HostError, match="No space left on device"):
        SubnetEnv.prepare(tmp_path / "new" / "subnet.env")
    assert list(tmp_path.iterdir()) == []


def test_a_failed_commit_leaves_nothing_and_names_the_reason(tmp_path):
    path = tmp_path / "subnet.env"
    env = SubnetEnv.prepare(path)
    path.mkdir()
    with pytest.raises(HostError, match="Is a directory"):
        env.commit(TEXT)
    assert list(tmp_path.iterdir()) == [path]
    with pytest.raises(HostError, match="not prepared"):
        env.commit(TEXT)


def test_short_writes_are_completed(tmp_path, monkeypatch):
    pwrite = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda fd, data, offset: pwrite(fd, data[:7], offset))
    SubnetEnv.prepare(tmp_path / "subnet.env").commit(TEXT)
    assert (tmp_path / "subnet.env").read_text() == TEXT


def test_reading_back(tmp_path):
    path = tmp_path / "subnet.env"
    path.write_text(TEXT)
    assert read_env(path) == {
        "FLANNEL_NETWORK": "10.5.0.0/16",
        "FLANNEL_SUBNET": "10.5.3.1/24",
        "FLANNEL_MTU": "1472",
        "FLANNEL_IPMASQ": "false",
    }


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("export A=1", {"A": "1"}),
        ("  A = 1  ", {"A": "1"}),
        ("A: 1", {"A": "1"}),
        ("A=1 # why", {"A": "1"}),
        ("A='1 # no'  # why", {"A": "1 # no"}),
        (r'A="1 \"2\" #" # why', {"A": '1 "2" #'}),
        ("A=", {"A": ""}),
        ("A=''", {"A": ""}),
        ("# A=1", {}),
        ("", {}),
        ("no assignment", {}),
        ("A=10.1.0.0/16,192.168.0.0/16", {"A": "10.1.0.0/16,192.168.0.0/16"}),
        ("A=1\r\nA=2", {"A": "2"}),
        ("A=b=c", {"A": "b=c"}),
    ],
)
def test_reading_tolerates_dotenv_forms(tmp_path, line, expected):
    (tmp_path / "e").write_text(line)
    assert read_env(tmp_path / "e") == expected


def test_reading_nothing(tmp_path):
    assert read_env(tmp_path / "none") == {}
    with pytest.raises(HostError, match=f"cannot read the subnet file {tmp_path}: Is a directory"):
        read_env(Path(tmp_path))
