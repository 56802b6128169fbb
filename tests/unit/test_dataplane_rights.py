"""Which capabilities are kept: decided by settings and by whose the files are; given up in a process of its own."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from udpbackend.dataplane import rights
from udpbackend.settings import Settings

CAPABLE = os.geteuid() == 0

LIMIT = """
import json, sys
from pathlib import Path
from udpbackend.dataplane import rights
from udpbackend.settings import Settings
said = rights.limit(Settings(subnet_file=Path(sys.argv[1]), iptables_forward_rules=False))
print(json.dumps([said, *rights.held()]))
"""


def kept(settings):
    return set(rights._needed(settings))


def test_each_setting_keeps_what_it_needs(monkeypatch, tmp_path):
    monkeypatch.setattr(rights, "_is_legacy", lambda _: True)
    monkeypatch.setattr(rights, "LEGACY_TABLES", (tmp_path,))
    quiet = Settings(nice=0, iptables_forward_rules=False)
    least = {rights.NET_ADMIN, rights.NET_BIND_SERVICE}
    assert kept(quiet) == least
    assert kept(replace(quiet, nice=-1)) == least | {rights.SYS_NICE}
    assert kept(replace(quiet, workers=2)) == least | {rights.BPF}
    assert kept(replace(quiet, ip_masq=True)) == least | {rights.NET_RAW}
    monkeypatch.setattr(rights, "LEGACY_TABLES", (tmp_path, tmp_path / "not loaded"))
    assert kept(replace(quiet, ip_masq=True)) == least | {rights.NET_RAW, rights.SYS_MODULE}


@pytest.mark.parametrize(
    ("target", "legacy"), [("xtables-nft-multi", False), ("xtables-legacy-multi", True), ("iptables-wrapper", True)]
)
def test_only_an_iptables_that_is_known_to_be_the_new_one_needs_no_raw_socket(tmp_path, target, legacy):
    (tmp_path / target).touch()
    (tmp_path / "iptables").symlink_to(target)
    assert rights._is_legacy(str(tmp_path / "iptables")) is legacy
    assert not rights._is_legacy(None)


def test_permissions_are_read_all_the_way(tmp_path):
    inner = tmp_path / "closed" / "file"
    inner.parent.mkdir()
    inner.touch()
    assert rights._accessible(inner, os.R_OK)
    inner.parent.chmod(0o600)
    assert not rights._accessible(inner, os.R_OK)
    inner.parent.chmod(0o700)
    inner.chmod(0o200)
    assert not rights._accessible(inner, os.R_OK)
    assert rights._accessible(inner, os.W_OK)
    assert rights._accessible(tmp_path / "not" / "there", os.R_OK)


def test_what_the_kernel_says_is_read(tmp_path):
    status = tmp_path / "status"
    status.write_text("Name:\tx\nCapEff:\t0000000000003001\nNoNewPrivs:\t0\n")
    assert rights.held(status) == (("0", "net_admin", "net_raw"), False)
    status.write_text("Name:\tx\n")
    assert rights.held(status) == ((), False)


def limited(directory):
    done = subprocess.run(
        [sys.executable, "-c", LIMIT, directory / "subnet.env"], capture_output=True, text=True, check=True
    )
    return json.loads(done.stdout)


def test_the_rest_is_given_up(tmp_path):
    said, capabilities, no_new_privs = limited(tmp_path)
    assert (said, no_new_privs) == ("", True)
    if CAPABLE:
        assert {"net_admin", "sys_nice"} <= set(capabilities)
        assert set(capabilities) <= {"net_admin", "sys_nice", "net_bind_service", "dac_override"}
    else:
        assert capabilities == []


@pytest.mark.skipif(not CAPABLE, reason="root's files are given to somebody else")
def test_files_of_others_keep_the_right_to_them(tmp_path):
    mine, theirs = tmp_path / "mine", tmp_path / "theirs"
    mine.mkdir()
    theirs.mkdir(0o700)
    os.chown(theirs, 65534, 65534)
    needs = {it: not all(rights._accessible(*file) for file in rights._files(Settings(subnet_file=it / "e")))
             for it in (mine, theirs)}  # fmt: skip
    assert needs == {mine: False, theirs: True}
    assert "dac_override" in limited(theirs)[1]
    assert Path(theirs).stat().st_uid == 65534
