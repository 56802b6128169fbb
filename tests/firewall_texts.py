"""The rules to the letter, as flannel has them and as the programs list them, and the plan that asks for them.

Written down a second time, from flannel's own, and in no way made by the code under test.
"""

from udpbackend.host.firewall_rules import FirewallPlan
from udpbackend.model import Prefix

NETWORK, SUBNET = Prefix.parse("10.5.0.0/16"), Prefix.parse("10.5.3.0/24")
NETWORK6, SUBNET6 = Prefix.parse("fd00:5::/48"), Prefix.parse("fd00:5:0:3::/64")
PLAN = FirewallPlan(NETWORK, SUBNET, masquerade=True)
PLAN6 = FirewallPlan(NETWORK, SUBNET, NETWORK6, SUBNET6, masquerade=True)
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
