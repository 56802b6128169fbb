"""Whether this host's clock agrees with the registry's.

A clock that is wrong makes certificates and tokens invalid and logs of two nodes incomparable; packets do not care. So
it is compared with the only other clock that matters here, that of the API server or etcd: every answer of theirs over
HTTP bears a Date (RFC 9110 6.6.1), even a refusal. The certificate is not looked at, since its check would itself need
the right time, and nothing is said or believed but the date. The kernel's own word on being synchronised (STA_UNSYNC)
is not used: many a healthy machine never clears it, and it says nothing about how wrong the clock is.
"""

from __future__ import annotations

import re
import time
from email.utils import parsedate_to_datetime

import aiohttp

from udpbackend.doctor.api import cluster
from udpbackend.doctor.facts import Facts
from udpbackend.errors import UdpBackendError
from udpbackend.findings.finding import Finding, NotChecked, Results

ASK_S = 5.0
SKEW_S = 10.0
"""A Date has whole seconds, and an answer may take some."""

URL = re.compile(r"https?://[^\s,]+")


async def look(facts: Facts) -> Results:
    """The registry's clock against ours."""
    if facts.report and facts.report.registry.kind == "static":
        return [NotChecked("the registry is a file: nothing here depends on the clock")]
    url = await _url(facts)
    if not url:
        return [NotChecked("no daemon answers that says where the registry is")]
    try:
        return judge(await _skew_s(url), url)
    except (aiohttp.ClientError, OSError, ValueError) as error:
        return [NotChecked(f"{url} cannot be asked for the time: {error or type(error).__name__}")]


def judge(skew_s: float, url: str) -> list[Finding]:
    """`skew_s`: how far the registry's clock is ahead of ours, in seconds."""
    if abs(skew_s) <= SKEW_S:
        return []
    way = "behind" if skew_s > 0 else "ahead of"
    return [
        Finding(
            "risk",
            "the clock of this host is wrong, or that of the registry",
            f"it is {abs(skew_s):.0f} s {way} that of {url}",
            "let a time service run on both (timedatectl, chronyc tracking)",
        )
    ]


async def _url(facts: Facts) -> str:
    if facts.report and (match := URL.search(facts.report.registry.source)):
        return match[0]
    if not facts.kubernetes:
        return ""
    try:
        async with cluster(facts) as api:
            return api.url
    except UdpBackendError:
        return ""


async def _skew_s(url: str) -> float:
    """Asks for the version, which both kinds of registry tell. ValueError where the answer bears no date."""
    timeout = aiohttp.ClientTimeout(total=ASK_S)
    async with aiohttp.ClientSession(timeout=timeout) as session:
        before = time.time()
        async with session.get(f"{url.rstrip('/')}/version", ssl=False, allow_redirects=False) as response:
            now = (before + time.time()) / 2
            date = response.headers.get("Date")
    if date is None:
        raise ValueError("its answer bears no date")
    return parsedate_to_datetime(date).timestamp() + 0.5 - now
