"""A daemon's part in the tests of the Kubernetes registry: settings, and a registry that is being watched."""

import asyncio
import contextlib
import json
from ipaddress import IPv4Address

import pytest

from udpbackend.backends.backend import check_config
from udpbackend.errors import ConfigError
from udpbackend.model import Attributes
from udpbackend.settings import Settings
from udpbackend.subnets.kube.contact import Timing
from udpbackend.subnets.kube.manager import KubeSubnets

DEADLINE_S = 20.0
QUICK = Timing(request_s=10.0, first_s=0.01, most_s=0.02, patch_every_s=0.01, patch_for_s=10.0)
"""No wait that would cost a test time, and limits that a busy machine does not come near."""
ADDRESS = IPv4Address("192.0.2.1")
UDP = Attributes(ADDRESS)
NET_CONF = {"Network": "10.244.0.0/16", "Backend": {"Type": "udp"}}
DUAL_CONF = {**NET_CONF, "EnableIPv6": True, "IPv6Network": "fd00:10::/48"}


def settings(api, tmp_path, net_conf=NET_CONF, **more):
    """What the daemon is told on the node a."""
    path = tmp_path / "net-conf.json"
    path.write_text(json.dumps(net_conf))
    given = {"kube_api_url": api.url} if "kubeconfig_file" not in more else {}
    return Settings(kube_subnet_mgr=True, net_config_path=path, **{**given, "node_name": "a", **more})


@contextlib.asynccontextmanager
async def opened(given, timing=QUICK, environ=None):
    """A registry that knows its node."""
    registry = KubeSubnets(given, environ or {}, timing)
    try:
        registry.config = await registry.open(check_config)
        yield registry
    finally:
        await registry.close()


async def become(registry, condition):
    """Waits for the registry's state to be so; nothing tells us when it changes."""
    async with asyncio.timeout(DEADLINE_S):
        while not condition(registry.state):  # noqa: ASYNC110  (the state is a value, as the daemon sees it)
            await asyncio.sleep(0.005)


class Watched:
    """A registry with its lease, `run` and `watch` beside each other as in the daemon."""

    def __init__(self, registry, attributes=UDP):
        self.registry = registry
        self.attributes = attributes
        self.snapshots = asyncio.Queue()

    async def __aenter__(self):
        self.own = await self.registry.acquire(self.attributes)
        self._watching = asyncio.create_task(self._watch())
        self.running = asyncio.create_task(self.registry.run())
        return self

    async def __aexit__(self, *_):
        for task in (self._watching, self.running):
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                if not task.done() or task is self._watching:
                    await task

    async def _watch(self):
        async with contextlib.aclosing(self.registry.watch(self.own)) as snapshots:
            async for snapshot in snapshots:
                self.snapshots.put_nowait(snapshot)

    async def next(self):
        """The next snapshot."""
        async with asyncio.timeout(DEADLINE_S):
            return await self.snapshots.get()

    async def names(self):
        """The nodes of the next snapshot."""
        return {lease.node for lease in (await self.next()).leases}

    async def until(self, condition):
        """Waits for the state to be so."""
        await become(self.registry, condition)

    @property
    def quiet(self):
        """Whether there is no snapshot that nobody has taken."""
        return self.snapshots.empty()


@contextlib.asynccontextmanager
async def unwatched(api, it):
    """The API server is away meanwhile, so that what changes is found afterwards, all at once."""
    await api.stop()
    await it.until(lambda state: state.degraded)
    yield
    await api.start()


@contextlib.asynccontextmanager
async def watched(given, timing=QUICK, attributes=UDP):
    """A registry in use, its first snapshot not taken yet."""
    async with opened(given, timing) as registry, Watched(registry, attributes) as it:
        yield it


async def refusal(given, environ=None, error=ConfigError):
    """With what words a start is refused; at the latest by `held`."""
    with pytest.raises(error) as caught:
        async with opened(given, environ=environ) as registry:
            await registry.held(ADDRESS)
    return str(caught.value)
