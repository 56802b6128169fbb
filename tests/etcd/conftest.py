"""Fixtures of the tests against a real etcd, on loopback and without privileges.

Owns the decision whether these tests can run here at all. Tests run on uvloop, as the daemon does, and share a cluster;
each has a prefix of its own in it. Whoever stops members or needs TLS starts a cluster of their own.
"""

import itertools
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import uvloop
from etcd_server import Authority, Etcd, missing
from node import Scene

from udpbackend.subnets.etcd.access import Access
from udpbackend.subnets.etcd.client import Client
from udpbackend.subnets.etcd.store import Store

NUMBERS = itertools.count()


def pytest_asyncio_loop_factories(config: pytest.Config, item: pytest.Item) -> dict[str, Any]:
    """The hook of pytest-asyncio that says which loops a test runs on."""
    return {"uvloop": uvloop.new_event_loop}


@pytest.fixture(scope="session")
def able() -> None:
    """Skips loudly where there is no etcd."""
    if lacking := missing():
        pytest.skip(f"needs {lacking}")


@pytest.fixture(scope="session")
def etcd(able: None) -> Iterator[Etcd]:
    """The shared cluster: one member, no TLS, no login."""
    with Etcd() as made:
        yield made


@pytest.fixture(scope="session")
def authority(able: None, tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("certificates") / "ca")


@pytest.fixture
async def client(etcd: Etcd) -> AsyncIterator[Client]:
    made = Client(etcd.endpoints, Access())
    yield made
    await made.close()


@pytest.fixture
def prefix() -> str:
    return f"/test/{next(NUMBERS)}"


@pytest.fixture
def store(client: Client, prefix: str) -> Store:
    return Store(client, prefix)


@pytest.fixture
def scene(etcd: Etcd, prefix: str, tmp_path: Path) -> Scene:
    """A network of its own in the shared cluster."""
    return Scene(etcd, prefix, tmp_path)


@pytest.fixture
def own_scene(able: None, tmp_path: Path) -> Iterator[Scene]:
    """One in a cluster that the test may stop or empty."""
    with Etcd() as made:
        yield Scene(made, "/coreos.com/network", tmp_path)
