"""Which backend a configuration asks for."""

from importlib import import_module

import pytest

from udpbackend.backends.backend import BACKENDS, check_config
from udpbackend.errors import ConfigError
from udpbackend.subnets.config import parse_config


def config(kind):
    return parse_config(f'{{"Network": "10.5.0.0/16", "Backend": {{"Type": "{kind}"}}}}')


@pytest.mark.parametrize("kind", ["", "ipip", "UDPX"])
def test_an_unknown_backend_is_refused_with_those_there_are(kind):
    with pytest.raises(ConfigError, match=f'unknown backend type: {kind.lower()} .*expected .*"udp"'):
        check_config(config(kind))


@pytest.mark.parametrize("kind", BACKENDS)
def test_every_backend_of_the_table_can_be_checked_and_made(kind):
    check_config(config(kind))
    assert callable(import_module(f"udpbackend.backends.{BACKENDS[kind]}").backend)
