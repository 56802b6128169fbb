"""The profile: call chains are sorted by what was being done, and samples become microseconds for 64 KB."""

from collections import Counter

import pytest

from bench import docs, profile, profile_chains
from bench.profile_chains import IDLE, Sample, kind, parse

DAEMON, APPLICATION = 100, 200
TEXT = """iperf3   200
\tffffffff81a _copy_from_iter+0x1c ([kernel.kallsyms])
\tffffffff81b tcp_sendmsg_locked ([kernel.kallsyms])
\t         7f __GI___libc_write (/usr/lib/x86_64-linux-gnu/libc.so.6)

a name with spaces   100
\t         7f checksum_add_avx2 (/srv/venv/lib/_native.abi3.so)

swapper     0
\tffffffff81a pv_native_safe_halt ([kernel.kallsyms])

"""


def test_the_text_of_perf_is_read():
    assert list(parse(TEXT)) == [
        Sample("iperf3", 200, ("_copy_from_iter", "tcp_sendmsg_locked", "__GI___libc_write"), "[kernel.kallsyms]"),
        Sample("a name with spaces", 100, ("checksum_add_avx2",), "_native.abi3.so"),
        Sample("swapper", 0, ("pv_native_safe_halt",), "[kernel.kallsyms]"),
    ]
    assert list(parse("")) == []
    assert profile_chains.count(TEXT, {DAEMON}, ["iperf3"]) == {"app-kernel": 1, "daemon-c": 1, IDLE: 1}


CASES = {
    # innermost first; who; the kind
    "_copy_to_iter tun_do_read tun_chr_read_iter do_readv": (DAEMON, "tun-daemon"),
    "_copy_from_iter __ip_append_data udp_sendmsg __sys_sendmmsg": (DAEMON, "daemon-datagrams"),
    "_copy_to_iter udp_recvmsg": (DAEMON, "datagrams-daemon"),
    "_copy_from_iter tun_get_user tun_chr_write_iter": (DAEMON, "daemon-tun"),
    "_copy_to_iter tcp_recvmsg": (APPLICATION, "kernel-app"),
    "skb_segment __dev_queue_xmit udp_sendmsg": (DAEMON, "out"),
    "dev_gro_receive net_rx_action handle_softirqs do_softirq __dev_queue_xmit udp_sendmsg": (DAEMON, "in"),
    "tun_net_xmit __dev_queue_xmit tcp_write_xmit tcp_ack tun_get_user tun_chr_write_iter": (DAEMON, "out"),
    "tcp_v4_rcv netif_receive_skb tun_get_user tun_chr_write_iter": (DAEMON, "inner"),
    "skb_segment __dev_queue_xmit tcp_write_xmit tcp_ack handle_softirqs": (APPLICATION, "out"),
    "do_syscall_64": (DAEMON, "daemon-kernel"),
    "tcp_sendmsg_locked": (APPLICATION, "app"),
    "finish_task_switch": (0, "rest"),
}


@pytest.mark.parametrize("chain", CASES)
def test_the_kernels_work_is_sorted_by_what_it_was_last_called_for(chain):
    pid, expected = CASES[chain]
    sample = Sample("iperf3" if pid == APPLICATION else "?", pid, tuple(chain.split()), "[kernel.kallsyms]")
    assert kind(sample, {DAEMON}, ["iperf3"]) == expected


@pytest.mark.parametrize(
    ("comm", "pid", "file", "expected"),
    [
        ("python", DAEMON, "python3.11", "daemon-python"),
        ("python", DAEMON, "loop.cpython-311-x86_64-linux-gnu.so", "daemon-python"),
        ("python", DAEMON, "libc.so.6", "daemon-c"),
        ("iperf3", APPLICATION, "libiperf.so.0", "app"),
        ("python", 300, "python3.11", "rest"),
    ],
)
def test_a_programs_own_work_is_sorted_by_its_file(comm, pid, file, expected):
    assert kind(Sample(comm, pid, ("whatever",), file), {DAEMON}, ["iperf3"]) == expected


def test_samples_become_microseconds():
    one = profile.Profile()
    one.samples, one.bytes = Counter({"out": profile.HERTZ, IDLE: 2 * profile.HERTZ}), 1e5 * profile.UNIT_BYTES
    assert one.microseconds() == {"out": 10.0, IDLE: 20.0}


def test_the_table_has_what_anybody_does():
    profiles = [
        {"link": "wire", "system": "vxlan", "microseconds": {"out": 10.0, IDLE: 3.0}},
        {"link": "wire", "system": "udp", "microseconds": {"out": 11.0, "tun-daemon": 4.0, "rest": 0.01}},
    ]
    document = {"workload": "tcp-1", "rounds": 2, "seconds": 3, "profiles": profiles}
    assert profile.rows(document) == [
        ["copy: TUN to daemon", "-", "4.0"],
        [profile_chains.KINDS["out"], "10.0", "11.0"],
        ["all work", "10.0", "15.0"],
        ["processors idle", "3.0", "-"],
    ]
    assert "| µs for 64 KB | wire: vxlan | wire: udp |" in profile.section(document, docs.markdown)
