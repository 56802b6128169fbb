"""How `doctor` runs its checks and what it prints of them."""

import asyncio
import json
import threading

import pytest
from doctored_facts import doctor_facts, report

from udpbackend.commands import doctor
from udpbackend.commands.table import Palette
from udpbackend.doctor.aside import aside
from udpbackend.doctor.examine import CHECKS, Check, Found, examine
from udpbackend.errors import HostError, UsageError
from udpbackend.findings.finding import Finding, NotChecked, count, named

DOWN = Finding("down", "a", "b", "c")
RISK = Finding("risk", "d", "e", "f")
PLAIN = Palette(on=False)


def check(name, *results, error=None):
    async def look(_facts):
        if error:
            raise error
        return list(results)

    return Check(name, look, "something")


async def run(*checks, limit_s=5.0):
    return await examine(doctor_facts(), checks, limit_s)


async def test_what_looks_at_what_the_others_have_caused_looks_when_they_are_done():
    order = []

    async def early(_facts):
        await asyncio.sleep(0)
        order.append("early")
        return [RISK]

    async def late(_facts):
        order.append("late")
        return [RISK]

    found = await run(Check("late", late, "", last=True), Check("early", early, ""))
    assert order == ["early", "late"]
    assert [it.check for it in found] == ["late", "early"]


async def test_findings_stand_worst_first_and_then_in_the_order_of_the_checks():
    part = Finding("part", "g", "h", "i")
    found = await run(check("one", RISK, NotChecked("w")), check("two", part, DOWN), check("three", DOWN))
    assert [(it.check, getattr(it.result, "severity", None)) for it in found] == [
        ("two", "down"),
        ("three", "down"),
        ("two", "part"),
        ("one", "risk"),
        ("one", None),
    ]


async def test_a_check_that_cannot_look_says_why():
    found = await run(check("one", error=HostError("no such right")), check("two", DOWN))
    assert found[1] == Found("one", NotChecked("no such right"))


async def test_a_defect_of_one_check_does_not_hide_the_others():
    found = await run(check("one", error=KeyError("x")), check("two", error=TimeoutError()), check("three", DOWN))
    assert found[0] == Found("three", DOWN)
    assert found[1].result == NotChecked("the check itself has failed, please report it: KeyError('x')")
    assert "TimeoutError" in found[2].result.why


async def test_a_check_that_hangs_is_a_finding():
    dead = threading.Event()

    async def look(_facts):
        return await aside(dead.wait)()

    found = await run(Check("one", look, "a dead file system"), check("two", RISK), limit_s=0.05)
    dead.set()
    assert found[0].result.what == "looking at a dead file system does not end"
    assert found[0].result.severity == "part"
    assert found[1].result == RISK


async def test_what_runs_aside_gives_its_result_and_its_errors():
    assert await aside(divmod)(7, 2) == (3, 1)
    with pytest.raises(ZeroDivisionError):
        await aside(divmod)(7, 0)


def test_what_runs_aside_may_outlive_the_loop():
    dead = threading.Event()

    @aside
    def hang_for_good():
        dead.wait()

    async def leave():
        async with asyncio.timeout(0.01):
            await hang_for_good()

    with pytest.raises(TimeoutError):
        asyncio.run(leave())
    (thread,) = (it for it in threading.enumerate() if it.name == "hang_for_good")
    assert thread.daemon, "the end of the program does not wait for it"
    dead.set()
    thread.join(5)  # it finds the loop closed, and nobody complains


def test_the_text():
    found = [Found("one", DOWN), Found("two", RISK), Found("two", NotChecked("w")), Found("three", NotChecked("x"))]
    assert doctor.as_text(found, PLAIN, checks=5) == [
        "DOWN  a",
        "  evidence: b",
        "  cure: c",
        "",
        "RISK  d",
        "  evidence: e",
        "  cure: f",
        "",
        "not checked: two: w",
        "not checked: three: x",
        "",
        "2 findings (5 checks, 2 not checked)",
    ]
    assert doctor.as_text([], PLAIN, checks=5) == ["nothing wrong found (5 checks, 0 not checked)"]
    assert doctor.as_text(found[:1], PLAIN, checks=1)[-1] == "1 finding (1 check, 0 not checked)"


def test_a_name_from_the_registry_cannot_steer_the_terminal():
    found = [Found("one", Finding("down", "\x1b[2Ja", "\x1b]0;b\x07", "c")), Found("two", NotChecked("\x1b[A"))]
    assert "\x1b" not in "\n".join(doctor.as_text(found, PLAIN))
    assert "\x1b[31mDOWN \x1b[0m ?[2Ja" in doctor.as_text(found, Palette(on=True))


def test_the_json():
    found = [Found("one", DOWN), Found("two", NotChecked("w"))]
    document = json.loads(doctor.as_json(doctor_facts(report=report()), found, checks=2))
    assert document.pop("version")
    assert document == {
        "schema": 1,
        "node": "alpha",
        "daemon": "ready",
        "checks": 2,
        "findings": [{"check": "one", "severity": "down", "what": "a", "evidence": "b", "cure": "c"}],
        "not_checked": [{"check": "two", "why": "w"}],
    }
    document = json.loads(doctor.as_json(doctor_facts(), []))
    assert (document["node"], document["daemon"], document["checks"]) == (None, None, len(CHECKS))


@pytest.mark.parametrize("argv", [["--subnet"], ["extra"], ["--subnet-file"], ["--subnet-file", "/"], ["--color=pink"]])
def test_usage_errors(argv):
    with pytest.raises(UsageError) as caught:
        doctor.run(argv)
    assert caught.value.status == 2


def test_flags_and_the_variables_of_the_daemon(monkeypatch):
    seen = []

    async def spy(settings, cni):
        seen.append((settings, cni))
        return doctor_facts(), []

    monkeypatch.setattr(doctor, "_examine", spy)
    monkeypatch.setenv("FLANNELD_SUBNET_FILE", "/run/a/b.env")
    monkeypatch.setenv("FLANNELD_KUBE_SUBNET_MGR", "true")
    monkeypatch.setenv("FLANNELD_CNI_BIN_DIR", "/x:/y")
    assert doctor.run(["-node-name", "n", "--kube-api-url=http://192.0.2.1:8080"]) == 0
    assert doctor.run(["--subnet-file=/c/d.env", "--cni-conf-dir=/z", "--json"]) == 0
    (first, folders), (second, named_folders) = seen
    assert (str(first.status_socket), first.kube_subnet_mgr, first.node_name) == ("/run/a/b.sock", True, "n")
    assert [str(it) for it in (folders.conf, *folders.programs)] == ["/etc/cni/net.d", "/x", "/y"]
    assert not folders.named
    assert str(second.subnet_file) == "/c/d.env"
    assert (str(named_folders.conf), named_folders.named) == ("/z", True)


def test_the_exit_status(monkeypatch, capsys):
    for result, status in ((NotChecked("w"), 0), (RISK, 1)):

        async def found(_settings, _cni, result=result):
            return doctor_facts(), [Found("one", result)]

        monkeypatch.setattr(doctor, "_examine", found)
        assert doctor.run([]) == status
    assert capsys.readouterr().out.splitlines()[0] == "not checked: one: w"


def test_every_check_has_a_name_of_its_own():
    names = [it.name for it in CHECKS]
    assert len(set(names)) == len(names)


def test_long_lists_are_cut():
    assert named(["a", "b"]) == "a; b"
    assert named(list("abcdefg")) == "a; b; c; d; e; and 2 more"
    assert (count(1, "peer"), count(2, "peer")) == ("1 peer", "2 peers")
