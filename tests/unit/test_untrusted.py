"""What others hand us as text, in every form: each reader of tests/untrusted.py for a moment."""

import re
import subprocess
from pathlib import Path

import pytest
import untrusted

from udpbackend.commands import status
from udpbackend.errors import ConfigError
from udpbackend.subnets.kube.answers import ApiError
from udpbackend.subnets.kube.client import Api, Ask
from udpbackend.subnets.kube.node import Node

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = 100
NO_TEXT = {
    "a key": b'{"metadata": {"annotations": {"\x80": "x"}}}',
    "first": b'{"\xff": 1, "metadata": {"annotations": {"\xff": "x"}}}',
    "brackets": b"[" * 100_000,
}


@pytest.mark.parametrize("name", untrusted.TARGETS)
def test_whatever_comes_is_a_good_value_or_the_expected_error(name):
    untrusted.tried(untrusted.TARGETS[name], EXAMPLES)()


@pytest.mark.parametrize("text", NO_TEXT.values(), ids=NO_TEXT)
def test_what_is_no_text_ends_nobody(text):
    """One such value in etcd would have ended every daemon of the network."""
    with pytest.raises(ConfigError, match="/n/subnets/10"):
        untrusted.KEYS.lease(b"/n/subnets/10.5.2.0-24", text)
    with pytest.raises(ConfigError, match="not valid JSON"):
        untrusted.parse_nodes(text)
    with pytest.raises(status.NoAnswerError, match="of another version"):
        status._read("/run/x.sock", text)
    api = object.__new__(Api)
    api.url = "https://x"
    with pytest.raises(ApiError, match="gives a strange answer to list nodes"):
        api._decoded(Ask("list", "nodes", "/api/v1/nodes"), text, Node)


def test_make_fuzz_runs_every_fuzzer_in_c_and_nothing_else():
    recipe = subprocess.run(["make", "--dry-run", "fuzz", "T=1"], cwd=ROOT, capture_output=True, text=True, check=True)
    [loop] = re.findall(r"for program in (.*?);", recipe.stdout)
    assert {Path(word).name for word in loop.split()} == {file.stem for file in (ROOT / "tests/fuzz").glob("fuzz_*.c")}
