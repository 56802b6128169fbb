"""What does not depend on the backend: rules, the choice of the interface, subnet.env, status and metrics."""

import pytest
from firewall_facts import require
from fou_facts import has_fou, require_fou
from kernel_overlay import kernel_overlay
from test_firewall_traffic import asked, silent
from test_status import get

from bench.lab.topology import Lab
from bench.lab.wait import until

MASQUERADED_S = 5.0
KINDS = {
    "udp": ({"Type": "udp"}, 1472),
    "vxlan": ({"Type": "vxlan"}, 1450),
    "host-gw": ({"Type": "host-gw"}, 1500),
    **({"udp-kernel": ({"Type": "udp", "Dataplane": "kernel"}, 1472)} if has_fou() else {}),
}


@pytest.mark.parametrize(("backend", "mtu"), KINDS.values(), ids=KINDS)
def test_all_but_the_way_between_hosts_is_the_same(able, backend, mtu):
    require("iptables")
    if "Dataplane" in backend:
        require_fou()  # loads it: a daemon that learns of it from the configuration has no right left to do so
    with kernel_overlay(backend, Lab(3), pod_mtu=mtu, start=False) as overlay:
        kind = backend["Type"]
        a, b, c = overlay.lab.hosts  # no daemon on c: to the others it is the outside
        for host in (a, b):
            host.namespace.run("iptables", "-P", "FORWARD", "DROP")
            assert silent(host.pod, c.address, c.namespace)
            overlay.launch(host, "--ip-masq")
            overlay.await_ready(host)
        env = (overlay.run_directory(a) / "subnet.env").read_text().splitlines()
        assert env == [
            "FLANNEL_NETWORK=10.5.0.0/16", "FLANNEL_SUBNET=10.5.1.1/24", f"FLANNEL_MTU={mtu}", "FLANNEL_IPMASQ=true"
        ]  # fmt: skip
        status = overlay.status(a)
        assert (status["network"]["backend"], status["verdict"]["state"], status["routes"]) == (kind, "ready", 2)
        assert (status["interface"]["name"], status["interface"]["address"]) == ("eth0", a.address)
        told = get(a, "/metrics")[2].splitlines()
        assert "udpbackend_routes 2.0" in told
        assert any(line.startswith("udpbackend_info{") and f'backend="{kind}"' in line for line in told)
        for here, there in ((a, b), (b, a)):
            assert asked(here.pod, there.pod_address, there.pod) == here.pod_address
            assert asked(here.pod, c.address, c.namespace) == here.address

        a.namespace.run("iptables", "-t", "nat", "-F", "FLANNEL-POSTRTG")
        restart(overlay, a, r"--iface-regex=^10\.5\.1\.0$", "--iface-regex=^eth0$")
        assert overlay.status(a)["interface"]["name"] == "eth0", "not the device that the overlay has left"
        until(lambda: asked(a.pod, c.address, c.namespace) == a.address, MASQUERADED_S, "not masqueraded")
        restart(overlay, b, f"--iface={b.address}")
        assert overlay.status(b)["interface"]["name"] == "eth0"
        assert asked(a.pod, b.pod_address, b.pod) == a.pod_address


def restart(overlay, host, *choice):
    """With another choice of the interface."""
    command = [word for word in overlay.process(host).argv[3:] if not word.startswith("--iface")]
    overlay.stop(host)
    process = host.namespace.start(*command, *choice, name=f"udp-backend-{host.name}")
    overlay.reinstate(host, process)
    overlay.await_ready(host)
