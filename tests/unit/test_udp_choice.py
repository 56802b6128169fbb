"""Which dataplane the udp backend gets: what was asked for, where it can be, and one reason where it cannot."""

import asyncio
import logging
from ipaddress import IPv4Address

import pytest

from udpbackend.backends import udp_choice
from udpbackend.backends.backend import Context, check_config, make_backend
from udpbackend.backends.udp import UdpBackend
from udpbackend.backends.udp_config import UdpOptions
from udpbackend.backends.udp_kernel import KernelUdpBackend
from udpbackend.errors import ConfigError, HostError
from udpbackend.host.fou_probe import Verdict
from udpbackend.model import BackendConfig, Endpoint, NetworkConfig, Prefix
from udpbackend.settings import Settings

PROVEN, NO_MODULE, NO_RIGHT = Verdict(), Verdict(missing="no module fou"), Verdict(unproven="no capability SYS_ADMIN")


def config(kind="udp", **options):
    network = Prefix.parse("10.5.0.0/16")
    options = {"Type": kind, **options}
    return NetworkConfig(network, 24, IPv4Address("10.5.1.0"), IPv4Address("10.5.255.0"), BackendConfig(kind, options))


def made(monkeypatch, verdict, *, kind="udp", settings=None, **options):
    """The backend of a host that a probe says that of."""
    monkeypatch.setattr(udp_choice, "probe", lambda **_: verdict)
    endpoint = Endpoint("eth0", 2, 1500, IPv4Address("192.0.2.1"), IPv4Address("192.0.2.1"))
    context = Context(
        config=config(kind, **options),
        endpoint=endpoint,
        netlink=None,
        settings=settings or Settings(),
        published=lambda _: None,
    )
    return asyncio.run(make_backend(context))


@pytest.mark.parametrize(
    ("flag", "option", "expected"),
    [
        (None, None, UdpBackend),
        (None, "userspace", UdpBackend),
        (None, "kernel", KernelUdpBackend),
        (None, "auto", KernelUdpBackend),
        ("userspace", "kernel", UdpBackend),
        ("kernel", "userspace", KernelUdpBackend),
        ("auto", None, KernelUdpBackend),
    ],
)
def test_the_flag_goes_before_the_configuration(monkeypatch, flag, option, expected):
    options = {"dataplane": option} if option else {}
    assert type(made(monkeypatch, PROVEN, settings=Settings(dataplane=flag), **options)) is expected


def test_kernel_is_refused_with_what_is_missing(monkeypatch):
    with pytest.raises(HostError, match="cannot be the dataplane: no module fou; --dataplane=userspace runs anywhere"):
        made(monkeypatch, NO_MODULE, settings=Settings(dataplane="kernel"))


def test_kernel_is_tried_where_nothing_is_known_to_be_missing(monkeypatch, caplog):
    assert isinstance(made(monkeypatch, NO_RIGHT, settings=Settings(dataplane="kernel")), KernelUdpBackend)
    assert "not proven: no capability SYS_ADMIN" in caplog.text


@pytest.mark.parametrize("verdict", [NO_MODULE, NO_RIGHT], ids=["missing", "unproven"])
def test_auto_falls_back_with_one_line(monkeypatch, caplog, verdict):
    caplog.set_level(logging.INFO)
    assert isinstance(made(monkeypatch, verdict, settings=Settings(dataplane="auto")), UdpBackend)
    assert [it.message for it in caplog.records] == [
        f"dataplane auto: userspace, since {verdict.missing or verdict.unproven}"
    ]


def test_the_kernel_cannot_check_subnets(monkeypatch, caplog):
    caplog.set_level(logging.INFO)
    with pytest.raises(ConfigError, match="expected --source-check=peer or off"):
        made(monkeypatch, PROVEN, settings=Settings(dataplane="kernel", source_check="subnet"))
    assert isinstance(made(monkeypatch, PROVEN, settings=Settings(dataplane="auto", source_check="subnet")), UdpBackend)
    assert "--source-check=subnet" in caplog.text


@pytest.mark.parametrize("kind", ["vxlan", "host-gw"])
def test_other_backends_leave_no_choice(monkeypatch, kind):
    with pytest.raises(ConfigError, match=f"--dataplane=auto: the {kind} backend leaves no choice"):
        made(monkeypatch, PROVEN, kind=kind, settings=Settings(dataplane="auto"))
    with pytest.raises(ConfigError, match=rf"Backend.Dataplane: the {kind} backend leaves no choice"):
        check_config(config(kind, dataplane="kernel"))


def test_the_option_is_checked():
    assert UdpOptions.parse(BackendConfig("udp", {"DATAPLANE": "auto"})).dataplane == "auto"
    assert UdpOptions.parse(BackendConfig("udp", {"Dataplane": None})).dataplane is None
    with pytest.raises(ConfigError, match=r'Backend.Dataplane: expected "userspace", "kernel" or "auto", got "fou"'):
        check_config(config(Dataplane="fou"))
    with pytest.raises(ConfigError, match=r"Backend.Dataplane: expected a string, got 1"):
        check_config(config(Dataplane=1))


def test_what_is_asked_for_does_not_keep_queues_from_a_next_start():
    """Left alone, or said as it is anyway."""
    for settings in (Settings(dataplane="kernel"), Settings(source_check="subnet")):
        assert settings.identity() == Settings().identity()
    assert Settings(source_check="peer").identity() == {"source_check": "peer"}
