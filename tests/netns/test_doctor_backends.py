"""`doctor` beside backends that leave their packets to the kernel: what they make is no leftover, stopped or not."""

import pytest
from doctored import examine
from kernel_overlay import kernel_overlay

pytestmark = pytest.mark.usefixtures("able")

VXLAN, DIRECT, HOST_GW = {"Type": "vxlan"}, {"Type": "vxlan", "DirectRouting": True}, {"Type": "host-gw"}


@pytest.mark.parametrize(
    ("backend", "mtu", "overlay_is"),
    [(VXLAN, 1450, "flannel.1"), (DIRECT, 1450, "flannel.1"), (HOST_GW, 1500, "without a device")],
    ids=["vxlan", "DirectRouting", "host-gw"],
)
def test_nothing_is_wrong_with_what_it_makes(backend, mtu, overlay_is):
    with kernel_overlay(backend, pod_mtu=mtu) as overlay:
        a, _ = overlay.lab.hosts
        examine(overlay, a).nothing()
        a.namespace.ip("tuntap add flannel0 mode tun", "address add 10.5.9.0/32 dev flannel0")
        finding = examine(overlay, a).only("leftovers")
        assert finding["evidence"] == f"flannel0 has 10.5.9.0, the overlay of this node is {overlay_is}"
        a.namespace.ip("link delete flannel0")
        overlay.stop(a)
        examine(overlay, a).only("daemon")
