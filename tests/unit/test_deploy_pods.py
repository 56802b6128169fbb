"""deploy/kubernetes: what the programs in the pods are told and given is what they take, use and ask for.

Everything is compared with the programs' own settings, routes and requests; what the objects are by themselves is
`test_deploy_kubernetes`'s business.
"""

import asyncio
import json
from ipaddress import IPv4Address
from pathlib import Path

import pytest
from kube_api import KubeApi, node
from soundness import sound
from test_deploy_kubernetes import BY_KIND, CONTAINERS, DAEMON, DATA, INIT, VOLUMES

from udpbackend import __version__, cli, flags
from udpbackend.backends.backend import check_config
from udpbackend.backends.udp_config import UdpOptions
from udpbackend.commands import install_cni
from udpbackend.dataplane import tun
from udpbackend.doctor.checks.kube_rights import NEEDED
from udpbackend.doctor.facts import CniFolders
from udpbackend.model import Attributes
from udpbackend.observe.http import Server
from udpbackend.subnets.config import parse_config
from udpbackend.subnets.kube.manager import KubeSubnets

XTABLES_LOCK = "/run/xtables.lock"
"""Of iptables-legacy (its man page, FILES); compiled into it."""


def settings(*more):
    return flags.parse([*DAEMON["args"], *more], {})


def install_plan():
    command, *arguments = INIT["args"]
    assert command in cli.COMMANDS
    return install_cni._plan(install_cni._parser().parse_args(arguments), {})


def mounts(container, *, read_only):
    return {Path(it["mountPath"]) for it in container["volumeMounts"] if it.get("readOnly", False) == read_only}


@pytest.mark.parametrize("name", CONTAINERS)
def test_the_image_is_of_this_version(name):
    container = CONTAINERS[name]
    assert container["image"] == f"udp-backend:{__version__}"
    assert "command" not in container, "the image's entrypoint is the program"


def test_the_daemon_takes_its_flags():
    found = settings()
    assert (found.kube_subnet_mgr, found.ip_masq) == (True, True)
    assert str(found.net_config_path) == "/etc/kube-flannel/net-conf.json"


def test_the_daemon_has_the_paths_it_uses_and_no_others():
    found, cni = settings(), CniFolders()
    written = {found.subnet_file.parent, found.status_socket.parent, tun.DEVICE, Path(XTABLES_LOCK)}
    assert mounts(DAEMON, read_only=False) == written
    assert mounts(DAEMON, read_only=True) == {found.net_config_path.parent, cni.conf, *cni.programs}


def test_install_cni_has_the_paths_it_uses_and_no_others():
    plan = install_plan()
    assert mounts(INIT, read_only=False) == {plan.plugin.parent, plan.conf.parent}
    assert mounts(INIT, read_only=True) == {install_cni.CONF_FILE.parent}


def test_what_is_the_hosts_stands_where_the_host_has_it():
    """The plugin runs on the host and looks for the same paths there."""
    kinds = {}
    for it in (*INIT["volumeMounts"], *DAEMON["volumeMounts"]):
        if source := VOLUMES[it["name"]].get("hostPath"):
            assert source["path"] == it["mountPath"]
            kinds[source["path"]] = source["type"]
    assert kinds.pop(str(tun.DEVICE)) == "CharDevice"
    assert kinds.pop(XTABLES_LOCK) == "FileOrCreate"
    assert set(kinds.values()) == {"DirectoryOrCreate"}


async def test_the_probes_ask_what_is_served():
    found = settings()
    server = Server(None, None, socket_path=Path("/"), healthz_ip=found.healthz_ip, healthz_port=found.healthz_port)
    runner = await server._runner()
    served = {route.resource.canonical for route in runner.app.router.routes()}
    await server.stop()
    probes = {it: DAEMON[f"{it}Probe"]["httpGet"] for it in ("startup", "liveness", "readiness")}
    assert {it["path"] for it in probes.values()} <= served
    assert (probes["liveness"]["path"], probes["readiness"]["path"]) == ("/healthz", "/readyz")
    for it in probes.values():
        assert (it["host"], it["port"]) == (str(found.healthz_ip), found.healthz_port)


def test_the_network_is_one_for_the_udp_backend():
    config = parse_config(DATA["net-conf.json"])
    assert config.backend.type == "udp"
    assert UdpOptions.parse(config.backend) == UdpOptions()
    assert str(config.network) == "10.244.0.0/16"


def test_the_cni_configuration_is_the_one_that_install_cni_has_of_its_own():
    plan = install_plan()
    install_cni._check_list(DATA["cni-conf.json"].encode(), plan.plugin.name)
    assert json.loads(DATA["cni-conf.json"]) == json.loads(install_cni.STOCK.format(plugin=plan.plugin.name))
    assert set(DATA) == {install_cni.CONF_FILE.name, settings().net_config_path.name}


def rights(asked):
    """What RBAC calls the requests: verb, resource."""
    found = set()
    for it in asked:
        resource, _, rest = it.path.removeprefix("/api/v1/").partition("/")
        assert resource == "nodes", it.path
        below = rest.partition("/")[2]
        found.add((it.kind.lower(), f"nodes/{below}" if below else "nodes"))
    return found


async def test_the_role_has_what_the_daemon_asks_for_and_nothing_else(tmp_path):
    [variable] = DAEMON["env"]
    assert variable["valueFrom"] == {"fieldRef": {"fieldPath": "spec.nodeName"}}
    (tmp_path / "net-conf.json").write_text(DATA["net-conf.json"])
    async with KubeApi(node("a", "10.244.1.0/24")) as api:
        given = settings(f"--kube-api-url={api.url}", f"--net-config-path={tmp_path}/net-conf.json")
        registry = KubeSubnets(given, {variable["name"]: "a"})
        await registry.open(check_config)
        snapshots = registry.watch(await registry.acquire(Attributes(IPv4Address("192.0.2.1"))))
        async with asyncio.timeout(5):
            await anext(snapshots)
            await api.watched()
            await registry.complete(sound())
        await snapshots.aclose()
        await registry.close()
    [reading, writing] = BY_KIND["ClusterRole"]["rules"]
    allowed = {(verb, it) for rule in (reading, writing) for verb in rule["verbs"] for it in rule["resources"]}
    assert rights(api.asked) == allowed == {(verb, f"{it}/{below}".rstrip("/")) for verb, it, below in NEEDED}
    assert reading["apiGroups"] == writing["apiGroups"] == [""]
