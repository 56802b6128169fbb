"""The page of the node, `/` with --ui: one file that shows what `/status` says.

Owns the file and the headers that bind it: the browser runs only the script in it, talks only to where it came from,
and keeps nothing. It must not know what the status document holds.
"""

from __future__ import annotations

import base64
import hashlib
import re
from importlib.resources import files

_INLINE = re.compile(r"<(script|style)>\n(.*?)</\1>", re.DOTALL)


class Page:
    """The bytes and the headers, made once."""

    def __init__(self) -> None:
        text = files("udpbackend.observe").joinpath("page.html").read_text("utf-8")
        hashes = {tag: _hash(f"\n{inside}") for tag, inside in _INLINE.findall(text)}
        self.body = text.encode()
        self.headers = {
            "Content-Security-Policy": (
                f"default-src 'none'; connect-src 'self'; script-src {hashes['script']}; style-src {hashes['style']}; "
                "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
            ),
            "Cache-Control": "no-store",
            "Referrer-Policy": "no-referrer",
            "X-Content-Type-Options": "nosniff",
        }


def _hash(text: str) -> str:
    """As a policy names an inline text (CSP level 3, 2.3.1)."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
