"""A program: the whole daemon's code in memory, following the nodes of an API server as the daemon does.

`follow_nodes.py URL NET_CONF` prints a line of JSON for each snapshot: how many nodes, and the memory it took at most.
"""

import json
import sys
from contextlib import aclosing
from ipaddress import IPv4Address
from pathlib import Path

import uvloop

import udpbackend.daemon  # noqa: F401  (its weight counts)
from udpbackend.backends.backend import check_config
from udpbackend.model import Attributes
from udpbackend.settings import Settings
from udpbackend.subnets.kube.manager import KubeSubnets


def peak_mb():
    """The most memory this program has had; getrusage would count what its parent had before exec."""
    status = Path("/proc/self/status").read_text()
    return int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM"))) / 1024


async def main(url, net_conf):
    registry = KubeSubnets(
        Settings(kube_subnet_mgr=True, kube_api_url=url, net_config_path=net_conf, node_name="a"), {}
    )
    before = peak_mb()
    await registry.open(check_config)
    own = await registry.acquire(Attributes(IPv4Address("192.0.2.1")))
    async with aclosing(registry.watch(own)) as snapshots:
        async for snapshot in snapshots:
            said = {"nodes": len(snapshot.leases), "before_mb": before, "peak_mb": peak_mb()}
            print(json.dumps(said), flush=True)  # noqa: T201  (this is what the program is for)


uvloop.run(main(sys.argv[1], Path(sys.argv[2])))
