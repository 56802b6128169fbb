"""Environment, configuration and versions are judged as the real `bridge` judges them, built on the Go library."""

import json
from pathlib import Path

import pytest
from cni_plugin import Plugin, write_program

REAL = Path("/usr/lib/cni/bridge")

ENVIRONMENTS = [
    ("ADD", dict.fromkeys(("CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME", "CNI_PATH"))),
    ("CHECK", dict.fromkeys(("CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME", "CNI_PATH"))),
    ("DEL", dict.fromkeys(("CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME", "CNI_PATH"))),
    ("ADD", {"CNI_NETNS": ""}),
    ("ADD", {"CNI_CONTAINERID": "-c"}),
    ("ADD", {"CNI_CONTAINERID": "a/../b"}),
    ("ADD", {"CNI_IFNAME": "0123456789abcdef"}),
    ("ADD", {"CNI_IFNAME": ".."}),
    ("ADD", {"CNI_IFNAME": "."}),
    ("ADD", {"CNI_IFNAME": "a:b"}),
    ("ADD", {"CNI_IFNAME": "a b"}),
    ("DEL", {"CNI_IFNAME": "a/b"}),
]
CONFIGS = [
    b"{}",
    b"null",
    b'{"name":""}',
    b'{"name":"a b"}',
    b'{"name":"a<b"}',
    b'{"name":"-a"}',
    b'{"name":"n","cniVersion":"9.9.9"}',
    b'{"name":"n","cniVersion":"1"}',
]
CHECKED = ["", "0.3.1", "1.2.0", "9.9.9", "1", "x", "1.x", "1.0.x", "1.0.0.0", "1..0", "+1.0.0"]


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    return write_program(tmp_path_factory.mktemp("cni"))


@pytest.fixture
def plugin(program, tmp_path):
    return Plugin(program, tmp_path)


@pytest.fixture
def real(plugin):
    """The real `bridge`, to be asked the same; it speaks one version less."""
    if not REAL.exists():
        pytest.skip(f"needs {REAL} (containernetworking-plugins)")
    (plugin.folder / "real").mkdir()
    made = Plugin(REAL, plugin.folder / "real")
    return lambda *given, **environ: tuple(
        text if isinstance(text, int) else text.replace(' "1.0.0"]', ' "1.0.0" "1.1.0"]')
        for text in made.fails(*given, **environ)
    )


@pytest.mark.parametrize(("command", "environ"), ENVIRONMENTS)
def test_the_environment_is_judged_as_a_real_plugin_judges_it(plugin, real, command, environ):
    assert plugin.fails(command, **environ) == real(command, **environ)
    assert plugin.given() is None


@pytest.mark.parametrize("config", CONFIGS)
def test_the_configuration_is_judged_as_a_real_plugin_judges_it(plugin, real, config):
    assert plugin.fails("ADD", config) == real("ADD", config)


@pytest.mark.parametrize("version", CHECKED)
def test_a_version_is_judged_as_a_real_plugin_judges_it(plugin, real, version):
    config = json.dumps({"name": "n", "cniVersion": version}).encode()
    assert plugin.fails("CHECK", config) == real("CHECK", config)
