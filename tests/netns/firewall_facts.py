"""What the tests of masquerading and forward rules want, what the programs list, and other programs' rules beside ours.

The texts are written down here a second time, from flannel's own, and in no way made by the code under test.
"""

import os
import re
import shutil
import subprocess

import pytest

from udpbackend.host.firewall_rules import FirewallPlan
from udpbackend.model import Prefix

NETWORK, SUBNET = Prefix.parse("10.5.0.0/16"), Prefix.parse("10.5.3.0/24")
NETWORK6, SUBNET6 = Prefix.parse("fd00:5::/48"), Prefix.parse("fd00:5:0:3::/64")
PLAN = FirewallPlan(NETWORK, SUBNET, masquerade=True)
PLAN6 = FirewallPlan(NETWORK, SUBNET, NETWORK6, SUBNET6, masquerade=True)
OTHER = FirewallPlan(Prefix.parse("10.44.0.0/16"), Prefix.parse("10.44.9.0/24"), masquerade=True)
"""What an earlier run of another network has left."""

NAT_JUMP = '-A POSTROUTING -m comment --comment "flanneld masq" -j FLANNEL-POSTRTG'
FORWARD_JUMP = '-A FORWARD -m comment --comment "flanneld forward" -j FLANNEL-FWD'
NAT = """\
-N FLANNEL-POSTRTG
-A FLANNEL-POSTRTG -m mark --mark 0x4000/0x4000 -m comment --comment "flanneld masq" -j RETURN
-A FLANNEL-POSTRTG -s 10.5.3.0/24 -d 10.5.0.0/16 -m comment --comment "flanneld masq" -j RETURN
-A FLANNEL-POSTRTG -s 10.5.0.0/16 -d 10.5.3.0/24 -m comment --comment "flanneld masq" -j RETURN
-A FLANNEL-POSTRTG ! -s 10.5.0.0/16 -d 10.5.3.0/24 -m comment --comment "flanneld masq" -j RETURN
-A FLANNEL-POSTRTG -s 10.5.0.0/16 ! -d 224.0.0.0/4 -m comment --comment "flanneld masq" -j MASQUERADE --random-fully
-A FLANNEL-POSTRTG ! -s 10.5.0.0/16 -d 10.5.0.0/16 -m comment --comment "flanneld masq" -j MASQUERADE --random-fully
"""
FORWARD = """\
-N FLANNEL-FWD
-A FLANNEL-FWD -s 10.5.0.0/16 -m comment --comment "flanneld forward" -j ACCEPT
-A FLANNEL-FWD -d 10.5.0.0/16 -m comment --comment "flanneld forward" -j ACCEPT
"""

NFT = """\
table ip flannel-ipv4 {
	comment "rules for flannel-ipv4"
	chain postrtg {
		comment "chain to manage traffic masquerading by flannel"
		type nat hook postrouting priority srcnat; policy accept;
		meta mark & 0x00004000 == 0x00004000 return
		ip saddr 10.5.3.0/24 ip daddr 10.5.0.0/16 return
		ip saddr 10.5.0.0/16 ip daddr 10.5.3.0/24 return
		ip saddr != 10.5.0.0/16 ip daddr 10.5.3.0/24 return
		ip saddr 10.5.0.0/16 ip daddr != 224.0.0.0/4 masquerade fully-random
		ip saddr != 10.5.0.0/16 ip daddr 10.5.0.0/16 masquerade fully-random
	}

	chain forward {
		comment "chain to accept flannel traffic"
		type filter hook forward priority filter; policy accept;
		ip saddr 10.5.0.0/16 accept
		ip daddr 10.5.0.0/16 accept
	}
}
"""

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


def of_version_6(text):
    """The same rules for IPv6."""
    for four, six in {
        str(SUBNET): str(SUBNET6),
        str(NETWORK): str(NETWORK6),
        "224.0.0.0/4": "ff00::/8",
        "ipv4": "ipv6",
        "ip saddr": "ip6 saddr",
        "ip daddr": "ip6 daddr",
        "table ip ": "table ip6 ",
    }.items():
        text = text.replace(four, six)
    return text


def require(*programs):
    """Skips the test where one of the programs is missing; fails where UDPB_NO_SKIP=1 says that nothing is skipped."""
    if missing := [program for program in programs if shutil.which(program) is None]:
        complain = pytest.fail if os.environ.get("UDPB_NO_SKIP") == "1" else pytest.skip
        complain(f"needs {', '.join(missing)}")


def only(folder, *programs, legacy=False):
    """Makes PATH a folder with nothing but these; `legacy`: iptables then means the older kind."""
    for name in programs:
        found = shutil.which(name.replace("tables", "tables-legacy") if legacy else name)
        (folder / name).symlink_to(found)
    os.environ["PATH"] = str(folder)


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
