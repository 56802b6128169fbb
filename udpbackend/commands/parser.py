"""The command line of a sub-command: argparse whose refusals are ours, so that the front door tells and ends with 2."""

from __future__ import annotations

import argparse
from typing import NoReturn

from udpbackend.errors import UsageError


class Parser(argparse.ArgumentParser):
    """For `prog`, the words an operator types; a flag is only ever taken when written out."""

    def __init__(self, prog: str, description: str, epilog: str) -> None:
        super().__init__(prog=prog, description=description, epilog=epilog, allow_abbrev=False)

    def error(self, message: str) -> NoReturn:
        """Raises UsageError in place of printing the usage and exiting."""
        raise UsageError(f"{message}: see {self.prog} --help")


def seconds(text: str) -> float:
    """How long to wait, as an option's value."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0.01 <= value <= 60:
        raise argparse.ArgumentTypeError(f"{text!r}: expected 0.01 to 60 seconds")
    return value
