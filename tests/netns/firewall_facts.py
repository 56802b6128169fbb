"""What the programs list, and other programs' rules beside ours."""

import os
import re
import shutil
import subprocess

import pytest
from firewall_texts import NETWORK6

from udpbackend.host.firewall_rules import FirewallPlan
from udpbackend.model import Prefix

OTHER = FirewallPlan(Prefix.parse("10.44.0.0/16"), Prefix.parse("10.44.9.0/24"), masquerade=True)
"""What an earlier run of another network has left."""

OTHERS = """\
*nat
:DOCKER - [0:0]
-A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER
-A POSTROUTING -s 172.17.0.0/16 ! -o docker0 -j MASQUERADE
-A POSTROUTING -s 10.5.0.0/16 -m comment --comment "not flanneld masq" -j RETURN
COMMIT
*filter
:FORWARD DROP [0:0]
-A FORWARD -i docker0 ! -o docker0 -j ACCEPT
-A FORWARD -s 10.5.0.0/16 -j ACCEPT
-A INPUT -p udp --dport 8285 -j ACCEPT
COMMIT
"""
"""Another program's rules: neither ours nor to be touched."""

OTHERS_NFT = """\
table ip filter-of-mine {
	chain forward {
		type filter hook forward priority filter + 1; policy accept;
		ip saddr 10.5.0.0/16 accept
	}
}
"""


def require(*programs):
    """Skips the test where one of the programs is missing."""
    if missing := [program for program in programs if shutil.which(program) is None]:
        pytest.skip(f"needs {', '.join(missing)}")


def only(folder, *programs, legacy=False):
    """Makes PATH a folder with nothing but these; `legacy`: iptables then means the older kind."""
    for name in programs:
        found = shutil.which(name.replace("tables", "tables-legacy") if legacy else name)
        (folder / name).symlink_to(found)
    os.environ["PATH"] = str(folder)
    os.environ["XTABLES_LOCKFILE"] = str(folder / "lock")  # the older kind has one for all namespaces of the machine


def fake(folder, name, script):
    """Puts a program of that name before the real one."""
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    if str(folder) not in os.environ["PATH"].split(":"):
        os.environ["PATH"] = f"{folder}:{os.environ['PATH']}"


def sh(*words, text=None):
    """What the program prints."""
    done = subprocess.run(words, input=text, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{words}: {done.stderr}"
    return done.stdout


def listed(chain, table="nat", program="iptables"):
    """`-S CHAIN`."""
    return sh(program, "-t", table, "-S", chain)


def saved(program="iptables"):
    """Everything that the program holds, without the time and the counters of policies."""
    text = sh(f"{program}-save")
    return [re.sub(r" \[\d+:\d+\]", "", line) for line in text.splitlines() if not line.startswith("#")]


def ruleset():
    """Everything that nft knows."""
    return sh("nft", "--stateless", "list", "ruleset")


def others(program="iptables"):
    """Loads other programs' rules, and gives what is there then."""
    text = OTHERS
    if program == "ip6tables":
        text = text.replace("10.5.0.0/16", str(NETWORK6)).replace("172.17.0.0/16", "fd01::/64")
    sh(f"{program}-restore", "--noflush", text=text)
    return saved(program)
