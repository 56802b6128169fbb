"""The plugin as the one file a runtime starts, with other plugins played by scripts: answers, errors, state files."""

import json
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from cni_plugin import ENV4, VERSION, Plugin, write_program

RESULT = '{\n    "cniVersion": "0.3.1",   "ips": []\n}'
STATE = (
    b'{"cniVersion":"0.3.1","ipMasq":false,"ipam":{"ranges":[[{"subnet":"10.1.17.0/24"}]],"routes":'
    b'[{"dst":"10.1.0.0/16"}],"type":"host-local"},"isGateway":true,"mtu":1472,"name":"n","type":"bridge"}'
)
VERSIONS = '"0.1.0" "0.2.0" "0.3.0" "0.3.1" "0.4.0" "1.0.0" "1.1.0"'


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    return write_program(tmp_path_factory.mktemp("cni"))


@pytest.fixture
def plugin(program, tmp_path):
    made = Plugin(program, tmp_path)
    made.other(f"printf '%s' '{RESULT}'; echo said >&2")
    return made


def test_version(plugin):
    assert plugin.run("VERSION", b"no JSON") == (
        0,
        f'{{"cniVersion":"1.1.0","supportedVersions":[{VERSIONS.replace(" ", ",")}]}}\n',
        "",
    )


@pytest.mark.parametrize("command", [None, ""])
def test_without_a_command_a_person_is_told_what_it_is(plugin, command):
    status, out, err = plugin.run(command)
    first, second = err.splitlines()
    assert (status, out) == (0, "")
    assert first.startswith(f"CNI Plugin flannel version {VERSION}+udp-backend (linux/")
    assert first.endswith(") commit unknown")
    assert second == f"CNI protocol versions supported: {VERSIONS.replace(' ', ', ')}".replace('"', "")


def test_add_keeps_and_delegates_and_prints_the_result_as_it_came(plugin):
    status, out, err = plugin.run("ADD", CNI_ARGS="K8S_POD_NAME=p")
    assert (status, out) == (0, RESULT)
    assert err == STATE.decode() + "\nsaid\n"
    assert plugin.given() == STATE
    assert plugin.state.read_bytes() == STATE
    assert stat.S_IMODE(plugin.state.stat().st_mode) == 0o600
    assert stat.S_IMODE(plugin.state.parent.stat().st_mode) == 0o700
    assert list(plugin.state.parent.iterdir()) == [plugin.state]
    environ = (plugin.folder / "bridge.env").read_text().splitlines()
    assert {"CNI_COMMAND=ADD", "CNI_ARGS=K8S_POD_NAME=p", "CNI_IFNAME=eth0", "CNI_CONTAINERID=c1"} <= set(environ)


def test_another_python_environment_has_no_say(plugin, tmp_path):
    (tmp_path / "json.py").write_text("raise SystemExit(9)")
    done = plugin.run("ADD", PYTHONPATH=str(tmp_path), PYTHONSTARTUP="/x", PYTHONHOME="/none")
    assert done[:2] == (0, RESULT)


def test_add_is_kept_on_the_disk_before_it_is_delegated(plugin):
    plugin.other(f"cat {plugin.state} >{plugin.folder}/seen; printf '{{}}'")
    assert plugin.run("ADD")[:2] == (0, "{}")
    assert (plugin.folder / "seen").read_bytes() == STATE


def test_a_second_add_replaces_what_is_kept(plugin):
    plugin.run("ADD")
    plugin.run("ADD", plugin.config | {"delegate": {"mtu": 9}})
    assert json.loads(plugin.state.read_bytes())["mtu"] == 9


def test_a_failed_add_passes_the_error_on_and_keeps_the_state(plugin):
    plugin.other("""echo why >&2; echo '{"code": 42, "msg": "no <room>", "details": "d", "more": 1}'; exit 1""")
    assert plugin.fails("ADD") == (42, "no <room>", "d")
    assert plugin.run("ADD")[2].endswith("\nwhy\n")
    assert plugin.state.read_bytes() == STATE


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ("exit 3", "netplugin failed with no error message: exit status 3"),
        ("kill -9 $$", "netplugin failed with no error message: signal: killed"),
        ("printf 'a\"b' >&2; exit 1", 'netplugin failed: "a\\"b"'),
        ("printf nonsense; exit 1", 'netplugin failed but error parsing its diagnostic message "nonsense": Expecting'),
        ("printf '[]'; exit 1", 'netplugin failed but error parsing its diagnostic message "[]": expected an object'),
        ("""printf '{"code":"x"}'; exit 1""", "netplugin failed but error parsing its diagnostic message "),
    ],
)
@pytest.mark.parametrize("command", ["ADD", "DEL"])
def test_a_plugin_that_fails_without_an_error(plugin, command, lines, words):
    plugin.run("ADD")
    plugin.other(lines)
    code, msg, details = plugin.fails(command)
    assert (code, msg.startswith(words), details) == (0, True, ""), msg
    assert plugin.state.read_bytes() == STATE


def test_a_plugin_that_cannot_be_run(plugin):
    (plugin.others / "bridge").chmod(0o644)
    path = plugin.others / "bridge"
    assert plugin.fails("ADD")[1] == f"netplugin failed with no error message: fork/exec {path}: permission denied"


def test_a_result_that_is_none(plugin):
    plugin.other("printf nonsense")
    code, msg, _ = plugin.fails("ADD")
    assert (code, msg.startswith("failed to delegate add: failed to unmarshal raw result: ")) == (999, True)


def test_a_lot_of_output_blocks_nobody(plugin):
    plugin.config["delegate"] = {"x": "y" * 300_000}
    plugin.other(
        """head -c 300000 /dev/zero >&2; printf '{"a":"'; head -c 300000 /dev/zero | tr '\\0' x; printf '"}'"""
    )
    status, out, err = plugin.run("ADD")
    assert (status, len(out), len(err) > 600_000) == (0, 300_008, True)


def test_a_delegate_starts_with_pipe_signals_as_usual(plugin):
    plugin.other("""grep SigIgn /proc/self/status >&2; printf '{}'""")
    ignored = plugin.run("ADD")[2].split()[-1]
    assert not int(ignored, 16) & (1 << 12 | 1 << 24)  # SIGPIPE and SIGXFSZ


@pytest.mark.parametrize(
    ("command", "environ", "words"),
    [
        ("ADD", {}, 'failed to delegate add: failed to find plugin "other" in path [{0}/empty {0}/bin]'),
        ("ADD", {"CNI_PATH": "/x"}, 'failed to delegate add: failed to find plugin "other" in path [/x]'),
    ],
)
def test_a_plugin_that_is_not_there(plugin, command, environ, words):
    config = plugin.config | {"delegate": {"type": "other"}}
    assert plugin.fails(command, config, **environ) == (999, words.format(plugin.folder), "")
    assert plugin.state.exists()
    words = words.removeprefix("failed to delegate add: ")
    assert plugin.fails("DEL", config, **environ) == (999, words.format(plugin.folder), "")
    assert plugin.state.exists()


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("a/b", "failed to delegate add: invalid plugin name: a/b"),
        ("", "failed to delegate add: no plugin name provided"),
    ],
)
def test_a_name_that_no_plugin_can_have(plugin, kind, words):
    assert plugin.fails("ADD", plugin.config | {"delegate": {"type": kind}}) == (999, words, "")


def test_del_uses_what_is_kept_and_forgets_it(plugin):
    plugin.run("ADD")
    plugin.other("echo bye >&2")
    (plugin.folder / "subnet.env").unlink()
    other = plugin.config | {"delegate": {"mtu": 9}, "name": "other"}
    assert plugin.run("DEL", other, CNI_NETNS=None) == (0, "", "bye\n")
    assert plugin.given() == STATE
    assert list(plugin.state.parent.iterdir()) == []


def test_del_again_succeeds_and_runs_nothing(plugin):
    assert plugin.run("DEL") == (0, "", "")
    assert plugin.given() is None
    assert not plugin.state.parent.exists()


def test_a_failed_del_keeps_the_state(plugin):
    plugin.run("ADD")
    plugin.other("""echo '{"code": 11, "msg": "later"}'; exit 1""")
    assert plugin.fails("DEL") == (11, "later", "")
    assert plugin.state.read_bytes() == STATE


@pytest.mark.parametrize("kept", [b"", b"half {", b"[]", b"null", b"{}", b'{"type":7}', b'{"type":""}', b"\xff\xfe"])
def test_del_forgets_what_cannot_be_read(plugin, kept):
    plugin.state.parent.mkdir()
    plugin.state.write_bytes(kept)
    status, out, err = plugin.run("DEL")
    assert (status, out, err.startswith("failed to parse netconf: ")) == (0, "", True)
    assert plugin.given() is None
    assert not plugin.state.exists()


def test_a_state_that_cannot_be_kept_or_read(plugin):
    (plugin.folder / "data").write_text("")
    words = f"cannot keep what is delegated, in {plugin.folder}/data: file exists"
    assert plugin.fails("ADD") == (999, words, "")
    assert plugin.given() is None
    words = f"cannot read what is delegated, in {plugin.folder}/data: not a directory"
    assert plugin.fails("DEL") == (999, words, "")


@pytest.mark.parametrize(
    ("text", "error"),
    [
        (None, "open {0}: no such file or directory"),
        ("foo=bar\n" + ENV4.partition("\n")[2], "{0} is missing FLANNEL_NETWORK, FLANNEL_IPV6_NETWORK"),
        (ENV4.replace("10.1.0.0/16", "x"), "invalid CIDR address: x"),
    ],
)
def test_a_subnet_file_that_is_no_good(plugin, text, error):
    path = plugin.folder / "subnet.env"
    path.unlink()
    if text is not None:
        path.write_text(text)
    words = f"failed to load flannel 'subnet.env' file: {error.format(path)}. Check the flannel pod log for this node."
    assert plugin.fails("ADD") == (999, words, "")
    assert not plugin.state.exists()


def test_a_wrong_delegate_is_refused(plugin):
    words = "'delegate' dictionary must not have 'name' field, it'll be set by flannel"
    assert plugin.fails("ADD", plugin.config | {"delegate": {"name": "x"}}) == (999, words, "")
    assert not plugin.state.exists()


@pytest.mark.parametrize(
    ("command", "version", "expected"),
    [
        ("CHECK", "0.3.1", (1, "config version does not allow CHECK", "")),
        ("CHECK", None, (1, "config version does not allow CHECK", "")),
        ("CHECK", "1.1.1", (1, "plugin version does not allow CHECK", "")),
        ("CHECK", "1.0.9", (1, "incompatible CNI versions", f'config is "1.0.9", plugin supports [{VERSIONS}]')),
        ("STATUS", "1.0.0", (1, "config version does not allow STATUS", "")),
        ("GC", "1.0.0", (1, "config version does not allow GC", "")),
        ("GC", "", (1, "config version does not allow GC", "")),
        ("ADD", "9.9.9", (1, "incompatible CNI versions", f'config is "9.9.9", plugin supports [{VERSIONS}]')),
        ("DEL", "9.9.9", (1, "incompatible CNI versions", f'config is "9.9.9", plugin supports [{VERSIONS}]')),
        ("UPDATE", "1.1.0", (4, "unknown CNI_COMMAND: UPDATE", "")),
    ],
)
def test_commands_and_versions(plugin, command, version, expected):
    config = plugin.config | {"cniVersion": version, "prevResult": {}, "cni.dev/valid-attachments": []}
    assert plugin.fails(command, config) == expected
    assert plugin.given() is None


@pytest.mark.parametrize("version", ["0.4.0", "1.0.0", "1.1.0"])
def test_check_is_the_delegates_about_what_is_kept(plugin, version):
    """The file of the daemon has no part in it; the result may be in another version than the ADD was."""
    plugin.run("ADD")
    (plugin.folder / "subnet.env").unlink()
    plugin.other("true")
    result = {"cniVersion": version, "ips": []}
    assert plugin.run("CHECK", plugin.config | {"cniVersion": version, "prevResult": result})[:2] == (0, "")
    assert json.loads(plugin.given()) == json.loads(STATE) | {"cniVersion": version, "prevResult": result}
    assert "CNI_COMMAND=CHECK" in (plugin.folder / "bridge.env").read_text()
    plugin.other("""echo '{"code": 100, "msg": "the address is gone"}'; exit 1""")
    assert plugin.fails("CHECK", plugin.config | {"cniVersion": version}) == (100, "the address is gone", "")
    assert plugin.state.read_bytes() == STATE


@pytest.mark.parametrize(
    ("routes", "told"),
    [
        (
            [{"dst": "10.1.0.0/16"}, {"dst": "fd00::/48"}, {"dst": "10.2.0.0/16", "gw": "10.1.17.9"}],
            [
                {"dst": "10.1.0.0/16", "gw": "10.1.17.1"},
                {"dst": "fd00::/48", "gw": "fd00::1"},
                {"dst": "10.2.0.0/16", "gw": "10.1.17.9"},
            ],
        ),
        (["nonsense", {}], ["nonsense", {"gw": "10.1.17.1"}]),
        ("nonsense", "nonsense"),
    ],
)
def test_check_tells_the_gateway_of_each_route(plugin, routes, told):
    """Older versions of `bridge` know the route again only by it."""
    plugin.run("ADD")
    ips = [{"address": "10.1.17.2/24", "gateway": "10.1.17.1"}, {"address": "fd00::2/64", "gateway": "fd00::1"}]
    result = {"cniVersion": "1.0.0", "ips": ips, "routes": routes}
    assert plugin.run("CHECK", plugin.config | {"cniVersion": "1.0.0", "prevResult": result})[0] == 0
    assert json.loads(plugin.given())["prevResult"] == result | {"routes": told}


def test_check_of_what_was_never_added(plugin):
    config = plugin.config | {"cniVersion": "1.0.0"}
    found = plugin.fails("CHECK", config)
    assert found == (3, "no ADD of c1 is known", f"{plugin.folder}/data has nothing about it")
    plugin.state.parent.mkdir()
    plugin.state.write_bytes(b"half {")
    assert plugin.fails("CHECK", config)[:2][0] == 999
    assert plugin.given() is None


def test_status_is_the_delegates_once_the_daemon_was_ready(plugin):
    config = plugin.config | {"cniVersion": "1.1.0"}
    plugin.other("true")
    assert plugin.run("STATUS", config) == (0, "", "")
    assert json.loads(plugin.given()) == json.loads(STATE) | {"cniVersion": "1.1.0"}
    plugin.other("""echo '{"code": 51, "msg": "no room"}'; exit 1""")
    assert plugin.fails("STATUS", config) == (51, "no room", "")
    (plugin.others / "bridge").unlink()
    code, msg, _ = plugin.fails("STATUS", config)
    assert (code, msg.startswith('failed to find plugin "bridge" in path ')) == (50, True)
    (plugin.folder / "subnet.env").unlink()
    code, msg, details = plugin.fails("STATUS", config)
    assert (code, msg) == (50, "the network is not ready on this node: the daemon has not written its subnet file")
    assert details.endswith(f"open {plugin.folder}/subnet.env: no such file or directory")
    assert not plugin.state.parent.exists()


def test_gc_takes_back_what_the_runtime_no_longer_has(plugin):
    """Containers of another network with the same directory are not its business."""
    for container in ("c1", "c2", "c3"):
        plugin.run("ADD", CNI_CONTAINERID=container)
    plugin.run("ADD", plugin.config | {"name": "other"}, CNI_CONTAINERID="c4")
    plugin.other(f"echo $CNI_COMMAND $CNI_CONTAINERID $CNI_IFNAME $CNI_NETNS >>{plugin.folder}/seen")
    valid = [{"containerID": "c1", "ifname": "eth0"}]
    config = plugin.config | {"cniVersion": "1.1.0", "cni.dev/valid-attachments": valid}
    unset = dict.fromkeys(("CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME"))
    assert plugin.run("GC", config, **unset) == (0, "", "")
    seen = (plugin.folder / "seen").read_text().splitlines()
    assert (sorted(seen[:2]), seen[2:]) == (["DEL c2 eth0", "DEL c3 eth0"], ["GC"])
    assert json.loads(plugin.given())["cni.dev/valid-attachments"] == valid
    assert sorted(path.name for path in plugin.state.parent.iterdir()) == ["c1", "c4"]
    assert plugin.run("GC", config, **unset) == (0, "", "")
    del config["cni.dev/valid-attachments"]
    assert plugin.fails("GC", config) == (7, "cni.dev/valid-attachments: expected a list", "")
    assert sorted(path.name for path in plugin.state.parent.iterdir()) == ["c1", "c4"]
    config["cni.dev/valid-attachments"] = None  # a Go program's empty list
    assert plugin.run("GC", config, **unset) == (0, "", "")
    assert sorted(path.name for path in plugin.state.parent.iterdir()) == ["c4"]


def test_gc_takes_back_what_it_can(plugin):
    """One container that cannot be taken back keeps neither the others nor the delegate's own leavings."""
    for container in ("c1", "c2", "c3"):
        plugin.run("ADD", CNI_CONTAINERID=container)
    refuse = """[ "$CNI_CONTAINERID" = c2 ] && { echo '{"code": 11, "msg": "try again later"}'; exit 1; }; true"""
    plugin.other(f"echo $CNI_COMMAND $CNI_CONTAINERID >>{plugin.folder}/seen; {refuse}")
    config = plugin.config | {"cniVersion": "1.1.0", "cni.dev/valid-attachments": []}
    unset = dict.fromkeys(("CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME"))
    assert plugin.fails("GC", config, **unset)[:2] == (11, "try again later")
    seen = (plugin.folder / "seen").read_text().split()
    assert sorted(seen) == sorted(["DEL", "c1", "DEL", "c2", "DEL", "c3", "GC"])
    assert [path.name for path in plugin.state.parent.iterdir()] == ["c2"]


OLDER = r"""
case $CNI_COMMAND in VERSION) echo '{"supportedVersions":["0.3.0","0.3.1"]}'; exit;; esac
grep -q '"cniVersion":"0.3.1"' %s/bridge.in && { echo took back >&2; exit; }
echo '{"code": 1, "msg": "incompatible CNI versions", "details": "d"}'; exit 1
"""


def test_del_of_what_a_newer_delegate_has_added(plugin):
    plugin.run("ADD", plugin.config | {"cniVersion": "1.1.0"})
    plugin.other(OLDER % plugin.folder)
    status, out, err = plugin.run("DEL", plugin.config | {"cniVersion": "1.1.0"})
    assert (status, out, err.endswith("took back\n")) == (0, "", True)
    assert not plugin.state.exists()


@pytest.mark.parametrize("versions", ['{"supportedVersions":["0.3.1"]}', "nonsense", "[]"])
def test_del_forgets_what_the_delegate_refuses_in_every_version(plugin, versions):
    """It has refused the ADD as well; a DEL that failed each time would keep the pod for ever."""
    plugin.other(f"""case $CNI_COMMAND in VERSION) echo '{versions}'; exit;; esac
        echo '{{"code": 1, "msg": "incompatible CNI versions", "details": "d"}}'; exit 1""")
    config = plugin.config | {"cniVersion": "1.1.0"}
    assert plugin.fails("ADD", config) == (1, "incompatible CNI versions", "d")
    status, out, err = plugin.run("DEL", config)
    assert (status, out, "refuses the version of what was delegated" in err) == (0, "", True)
    assert not plugin.state.exists()


@pytest.mark.parametrize("command", ["STATUS", "GC"])
def test_commands_for_no_container_need_the_path_alone(plugin, command):
    config = plugin.config | {"cniVersion": "1.1.0", "cni.dev/valid-attachments": []}
    unset = dict.fromkeys(("CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME"))
    plugin.other("true")
    assert plugin.run(command, config, **unset) == (0, "", "")
    assert plugin.fails(command, config, CNI_PATH=None)[1] == "required env variables [CNI_PATH] missing"


def test_the_own_network_namespace_is_refused_before_anything_is_done(plugin):
    words = "plugin's netns and netns from CNI_NETNS should not be the same"
    for command in ("ADD", "DEL"):
        assert plugin.fails(command, CNI_NETNS="/proc/self/ns/net") == (8, words, "")
    assert plugin.given() is None
    for allowed in ("1", "true", "TRUE"):
        assert plugin.run("ADD", CNI_NETNS="/proc/self/ns/net", CNI_NETNS_OVERRIDE=allowed)[0] == 0


def test_what_nobody_thought_of_is_an_error_too(plugin):
    code, msg, _ = plugin.fails("ADD", plugin.config | {"dataDir": "a\0b"})
    assert (code, msg.startswith("ValueError: embedded null ")) == (999, True)


@pytest.mark.parametrize(
    ("config", "code", "words"),
    [
        (b"", 6, "error unmarshall network config: "),
        (b"[]", 6, "error unmarshall network config: expected an object"),
        (b'{"name":7}', 6, "error unmarshall network config: name: expected a string"),
        (b'{"name":"n","cniVersion":7}', 6, "decoding version from network config: cniVersion: expected a string"),
        (b'{"name":"n","subnetFile":7}', 999, "failed to load netconf: subnetFile: expected a string"),
    ],
)
def test_what_a_real_plugin_says_in_words_of_go_we_say_in_ours(plugin, config, code, words):
    found = plugin.fails("ADD", config)
    assert (found[0], found[1].startswith(words), found[2]) == (code, True, ""), found


def test_no_input_at_all(program):
    done = subprocess.run(
        [shutil.which("sh"), "-c", f"exec {program} <&-"],
        env={"PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin", "CNI_COMMAND": "UPDATE"},
        capture_output=True,
        check=False,
    )
    assert (done.returncode, json.loads(done.stdout)["code"]) == (1, 5)
