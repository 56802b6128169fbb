"""`udp-backend cleanup` against what overlays leave behind, each test in a network namespace of its own."""

import shutil
import subprocess
import sys

import leavings
import pytest
from firewall_facts import fake, require
from inside import in_namespace, ip

from udpbackend.commands import cleanup
from udpbackend.errors import HostError, UsageError


@pytest.fixture
def folder(tmp_path):
    """Of the daemon, with nothing in it."""
    require("iptables", "ip6tables", "nft")
    made = tmp_path / "run"
    made.mkdir()
    return made


def run(folder, *flags):
    return cleanup.run([*flags, "--subnet-file", str(folder / "subnet.env")])


def rows(text):
    """WHAT -> ACTION."""
    lines = text.split("\n\n")[0].splitlines()
    start = lines[0].index("ACTION") if lines[0].startswith("WHAT") else pytest.fail(text)
    return {line.split("  ")[0]: line[start:] for line in lines[1:]}


@in_namespace
def test_all_that_is_left_is_shown_then_removed_and_nothing_else(folder, capfd):
    leavings.host()
    before = leavings.state(folder)
    leavings.leave_all(folder)
    left = leavings.state(folder)
    assert run(folder, "--dry-run") == 0
    shown = capfd.readouterr().out
    assert leavings.state(folder) == left, "--dry-run has changed something"
    assert shown.endswith("\n\nnothing was removed: --dry-run\n")
    assert rows(shown) == {
        **dict.fromkeys(
            [
                "device flannel0",
                "device flannel.1",
                "device flannel.7",
                "bridge cni0",
                *(f"route 10.5.{number}.0/24 via 192.0.2.9" for number in range(10, 15)),
                "5 more such routes",
                "route blackhole 10.5.3.0/24 metric 4294967295",
                "iptables table nat: chain FLANNEL-POSTRTG with 6 rules",
                "iptables table nat: jump from POSTROUTING to FLANNEL-POSTRTG",
                "iptables table filter: chain FLANNEL-FWD with 2 rules",
                "iptables table filter: jump from FORWARD to FLANNEL-FWD",
                "nftables table ip flannel-ipv4",
                f"{folder}/subnet.sock",
                f"{folder}/.subnet.env.a1b2c3d_",
                f"{folder}/subnet.env",
            ],
            "remove",
        ),
        "device flannel9": "left alone: no overlay makes a bridge device of this name",
    }
    assert run(folder) == 0
    table, _, done = capfd.readouterr().out.partition("\n\n")
    assert table == shown.partition("\n\n")[0], "the table comes first, and is that of --dry-run"
    assert [line.removeprefix("removed ") for line in done.splitlines()] == [
        what for what, action in rows(shown).items() if action == "remove"
    ]
    assert leavings.state(folder) == before
    assert run(folder) == 0
    assert capfd.readouterr().out.endswith("\n\nnothing to clean up\n")
    assert leavings.state(folder) == before


@in_namespace
def test_on_a_clean_host_there_is_no_table(folder, capfd):
    for flags in (["--dry-run"], []):
        assert run(folder, *flags) == 0
        assert capfd.readouterr().out == "nothing to clean up\n"


@in_namespace
def test_ipv6_leftovers(folder, capfd):
    ip("link", "add", "eth0", "type", "bridge")
    ip("link", "add", "flannel-v6.1", "type", "vxlan", "id", "1", "dstport", "8472")
    ip("link", "add", "cni0", "type", "bridge")
    ip("address", "add", "fd00:7:0:1::1/64", "dev", "cni0", "nodad")
    for name in ("eth0", "flannel-v6.1", "cni0"):
        ip("link", "set", name, "up")
    ip("route", "add", "fd00:5:0:3::/64", "dev", "eth0", "proto", "117")
    (folder / "subnet.env").write_text("FLANNEL_IPV6_NETWORK=fd00:5::/48\nFLANNEL_IPV6_SUBNET=fd00:5:0:1::1/64\n")
    assert run(folder) == 0
    assert "removed route fd00:5:0:3::/64\n" in capfd.readouterr().out
    assert {link["ifname"] for link in ip("-j", "link")} == {"lo", "eth0"}
    assert "fd00:" not in ip("-6", "route")


@pytest.mark.parametrize("name", ["flanneld", "flanneld-amd64", "k3s-server"])
@in_namespace
def test_beside_a_running_flannel_only_what_cannot_be_its_goes(folder, capfd, name):
    leavings.host()
    leavings.leave_all(folder)
    left = leavings.state(folder)
    with leavings.running(folder.parent, name) as process:
        assert run(folder) == 0
        shown = capfd.readouterr().out
    alone = f"left alone: perhaps in use by {name} (process {process.pid})"
    actions = rows(shown)
    assert {what for what, action in actions.items() if action == "remove"} == {
        "device flannel0",
        f"{folder}/subnet.sock",
    }
    assert actions["device flannel.1"] == actions["bridge cni0"] == actions[f"{folder}/subnet.env"] == alone
    after = leavings.state(folder)
    for listing in ("iptables-save", "nft --stateless list ruleset"):
        assert after[listing] == left[listing]
    assert [it for it in left["ip -d -o link"] if "flannel0" not in it] == after["ip -d -o link"]
    routes = left["ip route show table all"]
    assert [it for it in routes if "flannel0" not in it] == after["ip route show table all"]
    assert set(left["files"]) - set(after["files"]) == {"subnet.sock"}


@in_namespace
def test_another_programs_tun_is_taken_for_a_running_flannel(folder, capfd):
    ip("tuntap", "add", "flannel1", "mode", "tun")
    ip("link", "add", "flannel.1", "type", "vxlan", "id", "1", "dstport", "8472")
    (folder / "subnet.env").write_text(leavings.ENV)
    left = leavings.state(folder)
    assert run(folder) == 0
    actions = rows(capfd.readouterr().out)
    assert actions["device flannel1"].startswith("left alone: made by another program: its alias is ''")
    assert actions["device flannel.1"] == actions[f"{folder}/subnet.env"]
    assert actions["device flannel.1"].startswith("left alone: perhaps in use: flannel1 shows that flanneld runs")
    assert leavings.state(folder) == left


@in_namespace
def test_a_device_in_use_is_refused(folder):
    queue, status = leavings.leave_flannel0(folder)
    left = leavings.state(folder)
    with queue, status, pytest.raises(HostError, match=r"flannel0 is in use: a daemon holds 1 queue\(s\)"):
        run(folder)
    assert leavings.state(folder)["files"] == left["files"]
    assert "10.5.0.0/16 dev flannel0" in ip("route")


@in_namespace
def test_a_daemon_that_answers_is_refused(folder):
    queue, status = leavings.leave_flannel0(folder)
    queue.close()
    status.listen()
    left = leavings.state(folder)
    with status, pytest.raises(HostError, match="a daemon is running: it answers on"):
        run(folder)
    assert leavings.state(folder) == left


@in_namespace
def test_a_daemon_with_another_socket_is_refused(folder):
    """A second one of this host, which answers elsewhere."""
    leavings.leave_vxlan()
    left = leavings.state(folder)
    with (
        leavings.running(folder.parent, "udp-backend", "--") as process,
        pytest.raises(HostError, match=rf"a daemon is running: udp-backend \(process {process.pid}\)"),
    ):
        run(folder)
    assert leavings.state(folder) == left


@in_namespace
def test_a_vxlan_device_in_a_bridge_is_left(folder, capfd):
    leavings.leave_vxlan()
    ip("link", "add", "br0", "type", "bridge")
    ip("link", "set", "flannel.1", "master", "br0")
    assert run(folder) == 0
    assert rows(capfd.readouterr().out) == {"device flannel.1": "left alone: in use: it is a port of br0"}


@pytest.mark.parametrize(
    ("addresses", "ports", "action"),
    [
        (["10.7.1.1/24"], [], "remove"),
        (["10.5.3.1/24", "10.7.1.1/24"], [], "remove"),
        (["10.7.1.1/24"], ["veth1", "veth2"], "left alone: in use: veth1, veth2 attached"),
        (["10.5.3.1/24"], [], None),
        ([], [], None),
    ],
)
@in_namespace
def test_cni0(folder, capfd, addresses, ports, action):
    make_cni0(addresses, ports)
    (folder / "subnet.env").write_text(leavings.ENV)
    assert run(folder) == 0
    assert rows(capfd.readouterr().out).get("bridge cni0") == action
    assert ("cni0" in {link["ifname"] for link in ip("-j", "link")}) == (action != "remove")


@in_namespace
def test_cni0_of_nobody_knows_which_network(folder, capfd):
    make_cni0(["10.7.1.1/24"], [])
    assert run(folder) == 0
    alone = "left alone: it may be another network's: no subnet file says what this node's subnet is"
    assert rows(capfd.readouterr().out) == {"bridge cni0": alone}
    assert ip("-j", "link", "show", "cni0")
    ip("link", "add", "veth1", "type", "veth", "peer", "name", "veth2")
    ip("link", "set", "veth1", "master", "cni0")
    assert run(folder) == 0
    assert capfd.readouterr().out == "nothing to clean up\n", "with pods attached it is another network's"


def make_cni0(addresses, ports):
    ip("link", "add", "cni0", "type", "bridge")
    for address in addresses:
        ip("address", "add", address, "dev", "cni0")
    for port in ports:
        ip("link", "add", port, "type", "veth", "peer", "name", f"{port}p")
        ip("link", "set", port, "master", "cni0")


@in_namespace
def test_a_failure_stops_nothing_but_the_subnet_file(folder, capfd):
    leavings.leave_vxlan()
    leavings.leave_rules()
    (folder / "subnet.env").write_text(leavings.ENV)
    (folder / ".subnet.env12345").write_text("")
    nft = shutil.which("nft")
    fake(folder.parent, "nft", f'case "$*" in "-f -") echo it is broken >&2; exit 1;; esac; exec {nft} "$@"')
    assert run(folder) == 1
    found = capfd.readouterr()
    assert "cannot change the rules of nftables" in found.err
    assert "it is broken" in found.err
    assert {path.name for path in folder.iterdir()} == {"subnet.env"}
    assert found.out.endswith(f"kept {folder}/subnet.env: what is still there is known by it\n")
    assert [link["ifname"] for link in ip("-j", "link")] == ["lo"]
    (folder.parent / "nft").unlink()
    assert run(folder) == 0
    assert not list(folder.iterdir())


@in_namespace
def test_routes_that_may_be_made_by_hand_are_shown_and_left(folder, capfd):
    leavings.host()
    for number in (3, 5):
        ip("route", "add", f"10.5.{number}.0/24", "via", "192.0.2.9")
    (folder / "subnet.env").write_text(leavings.ENV)
    left = leavings.state(folder)
    assert run(folder, "--dry-run") == 0
    actions = rows(capfd.readouterr().out)
    assert [what for what in actions if what.startswith("route")] == ["route 10.5.5.0/24 via 192.0.2.9"]
    assert actions["route 10.5.5.0/24 via 192.0.2.9"].endswith("has made it: ip route delete 10.5.5.0/24")
    assert run(folder) == 0
    assert leavings.state(folder)["ip route show table all"] == left["ip route show table all"]


@in_namespace
def test_a_file_that_is_no_socket_and_files_of_other_names_are_left(folder):
    for name in ("subnet.sock", ".subnet.env.bak", "subnet.env.a1b2c3d_", "wgkey"):
        (folder / name).write_text("not ours\n")
    left = leavings.state(folder)
    assert run(folder) == 0
    assert leavings.state(folder) == left


@in_namespace
def test_a_subnet_file_that_cannot_be_read(folder, capfd):
    (folder / "subnet.env").mkdir()
    leavings.leave_vxlan()
    assert run(folder) == 1
    assert "cannot read the subnet file" in capfd.readouterr().err
    assert [link["ifname"] for link in ip("-j", "link")] == ["lo"]


@pytest.mark.parametrize("argv", [["--subnet"], ["extra"], ["--subnet-file"], ["--subnet-file", "/"], ["--dry-run=no"]])
def test_usage_errors(argv):
    with pytest.raises(UsageError) as caught:
        cleanup.run(argv)
    assert caught.value.status == 2


@in_namespace
def test_a_wrong_endpoint_is_a_usage_error_and_nothing_goes(folder):
    leavings.leave_vxlan()
    left = leavings.state(folder)
    with pytest.raises(UsageError, match="--etcd-endpoints: invalid value 'nonsense'"):
        run(folder, "--etcd-endpoints=nonsense")
    assert leavings.state(folder) == left


def test_it_loads_no_part_of_the_daemon():
    code = (
        "import sys, udpbackend.commands.cleanup\n"
        "print(sorted({m.partition('.')[0] for m in sys.modules} & {'uvloop', 'aiohttp', 'prometheus_client', 'grpc'}))"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout == "[]\n"
