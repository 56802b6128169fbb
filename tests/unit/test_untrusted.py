"""What others hand us as text, in every form: each reader of tests/untrusted.py for a moment."""

import pytest
import untrusted

from udpbackend.commands import status
from udpbackend.errors import ConfigError
from udpbackend.subnets.kube.answers import ApiError
from udpbackend.subnets.kube.client import Api, Ask
from udpbackend.subnets.kube.node import Node

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
