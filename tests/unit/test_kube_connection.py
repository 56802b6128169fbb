"""The client of an API server: a new one when there is doubt and a file has changed, the old one while it is used."""

import pytest
import yaml

from udpbackend.settings import Settings
from udpbackend.subnets.kube.access import find_access
from udpbackend.subnets.kube.connection import Connection


def write(path, token):
    document = {
        "current-context": "x",
        "clusters": [{"name": "c", "cluster": {"server": "http://192.0.2.1:1"}}],
        "users": [{"name": "u", "user": {"token": token}}],
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
    }
    path.with_suffix(".next").write_text(yaml.safe_dump(document))
    path.with_suffix(".next").rename(path)


@pytest.fixture
def file(tmp_path):
    write(tmp_path / "kubeconfig", "old")
    return tmp_path / "kubeconfig"


@pytest.fixture
async def connection(file):
    made = Connection(find_access(Settings(kube_subnet_mgr=True, kubeconfig_file=file)), request_s=1.0)
    yield made
    await made.close()


async def used(connection):
    async with connection.client() as client:
        return client


async def test_a_doubt_alone_changes_nothing(connection):
    first = await used(connection)
    connection.doubt()
    assert await used(connection) is first


async def test_a_changed_file_alone_changes_nothing(connection, file):
    first = await used(connection)
    write(file, "new")
    assert await used(connection) is first


async def test_both_make_a_new_client_once(connection, file):
    first = await used(connection)
    write(file, "new")
    connection.doubt()
    second = await used(connection)
    assert second is not first
    assert first.is_closed
    connection.doubt()
    assert await used(connection) is second
    assert not second.is_closed


async def test_a_client_in_use_is_closed_by_its_last_user(connection, file):
    async with connection.client() as first:
        async with connection.client() as again:
            assert again is first
            write(file, "new")
            connection.doubt()
            assert await used(connection) is not first
        assert not first.is_closed
    assert first.is_closed


async def test_files_that_are_no_good_leave_the_old_client_in_use(connection, file, caplog):
    first = await used(connection)
    file.write_text("{")
    for _ in range(3):
        connection.doubt()
        assert await used(connection) is first
    file.unlink()
    connection.doubt()
    assert await used(connection) is first
    assert [record.levelname for record in caplog.records] == ["WARNING", "WARNING"]
    write(file, "new")
    connection.doubt()
    assert await used(connection) is not first
