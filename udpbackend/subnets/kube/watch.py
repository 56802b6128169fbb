"""Following the nodes: list, then watch, and list again after anything that may have made us miss a change.

Owns the order of these and what each end of a watch means. One that ends in good order, at its time or before, is gone
on from: whether anything was missed is the server's to say. A list replaces what is known only when it is complete and
shows our own node: what lacks it is no list of this cluster, and nobody is dropped because of it. Knows no leases.
"""

from __future__ import annotations

import asyncio
import logging
import random
from contextlib import aclosing

from udpbackend.subnets.kube.answers import ApiError, StaleError
from udpbackend.subnets.kube.client import Api
from udpbackend.subnets.kube.contact import Contact, Timing
from udpbackend.subnets.kube.node import Reading
from udpbackend.subnets.kube.view import View

log = logging.getLogger(__name__)

EARLY_S = 1.0
"""A watch that ends so much before its time, or earlier, was not ended by its time."""

SHORT_S = 1.0
"""A watch that ends as soon as this without a word shows nothing: by such ones alone we would learn of no change."""


async def follow(api: Api, view: View, contact: Contact, timing: Timing) -> None:
    """Keeps `view` as the API server shows the nodes; until cancelled."""
    version = ""
    while True:
        try:
            version = version or await _list(api, view, contact)
            version = await _watch(version, api, view, contact, timing)
        except StaleError as error:
            version = ""
            log.debug("%s: listing the nodes again", error)
            await contact.pause()
        except ApiError as error:
            if not error.retry_after_s:  # a server that is only busy has no use for another list
                version = ""
            await contact.lost(error)


async def _list(api: Api, view: View, contact: Contact) -> str:
    """Returns the version to watch from."""
    readings: dict[str, Reading] = {}
    version, own_is_there = "", False
    async with aclosing(api.pages()) as pages:
        async for page in pages:
            readings |= view.read(page.items)
            own_is_there |= any(node.name == view.own.name for node in page.items)
            version = page.metadata.resource_version
    if not own_is_there:
        raise ApiError(f"the node {view.own.name} of this host is not among the nodes of the API server {api.url}")
    contact.synced()
    view.replace(readings)
    return version


async def _watch(version: str, api: Api, view: View, contact: Contact, timing: Timing) -> str:
    """Follows changes until the watch ends, then returns the version to go on from when it is time to.

    A load balancer or a server that leaves ends a watch early; as many lists as nodes would be a burden each time.
    """
    loop = asyncio.get_running_loop()
    seconds = int(timing.watch_s * random.uniform(1, 1.25))  # noqa: S311 nothing is to be kept secret
    began, told = loop.time(), False
    async with api.watch(version, seconds) as events:
        contact.restored()
        async for event in events:
            contact.synced()
            told = True
            version = event.node.metadata.resource_version or version
            if event.type == "DELETED":
                view.remove(event.node.name)
            elif event.type in ("ADDED", "MODIFIED"):
                view.put(event.node)
    lasted = loop.time() - began
    if lasted < SHORT_S and not told:
        raise StaleError(f"the API server {api.url} has ended a watch at once")
    if lasted < seconds - EARLY_S:
        await contact.pause()
    return version
