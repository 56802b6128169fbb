"""What must not leave a host with a report: secrets always, public addresses on request.

Pure: text in, text out. The same address becomes the same word in every file of one report, so that what belongs
together can still be seen. Must not know where the text comes from.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from ipaddress import AddressValueError, IPv4Address, IPv6Address

from udpbackend.model import Prefix

SECRET = "[secret]"  # noqa: S105 what stands in a secret's place

_SECRETS = (
    (re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)", re.DOTALL), SECRET),
    (re.compile(r"\beyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]*"), SECRET),  # a JSON web token, as service accounts have
    (re.compile(r"(\b[a-z][a-z0-9+.-]*://[^\s/:@]*:)[^\s/@]+@", re.IGNORECASE), rf"\g<1>{SECRET}@"),
    (
        re.compile(
            r"((?:password|passwd|secret|token|authorization|api[_-]?key)[\"']?\s*[=:]\s*[\"']?(?:bearer\s+|basic\s+)?)"
            r"[^\s\"',;]+",
            re.IGNORECASE,
        ),
        rf"\g<1>{SECRET}",
    ),
)
_IPV4 = re.compile(r"(?<![\w.])(?:\d{1,3}\.){3}\d{1,3}(?![\w]|\.\d)")
_IPV6 = re.compile(r"(?<![\w:.])[0-9A-Fa-f]{0,4}(?::[0-9A-Fa-f]{0,4}){2,7}(?![\w:])")


class Redaction:
    """The words of one report. `keep`: prefixes that are not public whatever they look like: the overlay's own."""

    def __init__(self, *, addresses: bool, keep: Sequence[Prefix] = ()) -> None:
        self._addresses = addresses
        self._keep = keep
        self._words: dict[str, str] = {}

    def apply(self, text: str) -> str:
        """The text without secrets and, if that was asked for, without public addresses."""
        for pattern, word in _SECRETS:
            text = pattern.sub(word, text)
        if self._addresses:
            text = _IPV6.sub(self._word, _IPV4.sub(self._word, text))
        return text

    def _word(self, match: re.Match[str]) -> str:
        text = match.group()
        try:
            address: IPv4Address | IPv6Address = IPv6Address(text) if ":" in text else IPv4Address(text)
        except AddressValueError:  # a version number, a MAC, a time of day
            return text
        if not address.is_global or any(it.holds(address) for it in self._keep):
            return text
        return self._words.setdefault(str(address), f"public-ipv{address.version}-{len(self._words) + 1}")
