"""Which backend a configuration asks for."""

from importlib import import_module

import pytest

from udpbackend.backends.backend import BACKENDS, Context, make_backend
from udpbackend.errors import ConfigError
from udpbackend.settings import Settings
from udpbackend.subnets.config import parse_config


def context(kind):
    text = f'{{"Network": "10.5.0.0/16", "Backend": {{"Type": "{kind}"}}}}'
    return Context(
        config=parse_config(text), endpoint=None, netlink=None, settings=Settings(), published=lambda _: None
    )


@pytest.mark.parametrize("kind", ["", "ipip", "UDPX"])
def test_an_unknown_backend_is_refused_with_those_there_are(kind):
    with pytest.raises(ConfigError, match=f'unknown backend type: {kind.lower()} .*expected .*"udp"'):
        make_backend(context(kind))


@pytest.mark.parametrize("module", BACKENDS.values())
def test_every_backend_of_the_table_can_be_made(module):
    assert callable(import_module(f"udpbackend.backends.{module}").backend)
