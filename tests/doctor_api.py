"""The API server of the tests, with what `doctor` asks beyond it: reviews of what we are allowed to do.

Run as a program it serves nodes as kube_api.py does, and forbids what a second file names, a line each like
`patch nodes/status`, as that file is at the moment: `doctor_api.py ADDRESS PORT NODES.json FORBIDDEN`.
"""

import asyncio
import json
import sys
from pathlib import Path

from aiohttp import web
from kube_api import KubeApi

REVIEWS = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"


class ReviewingApi(KubeApi):
    """Says that everything is allowed but what `forbidden()` names, and answers other requests all the same."""

    def __init__(self, *nodes, forbidden=frozenset, **options):
        super().__init__(*nodes, **options)
        self._forbidden = forbidden

    async def _review(self, request):
        await self._admit(request)
        body = await request.json()
        what = body["spec"]["resourceAttributes"]
        right = f"{what['verb']} {what['resource']}" + (f"/{what['subresource']}" if what["subresource"] else "")
        status = {"allowed": right not in self._forbidden()}
        return web.json_response({**body, "status": status}, status=201)

    async def start(self):
        app = web.Application()
        app.router.add_post(REVIEWS, self._review)
        app.router.add_get("/api/v1/nodes", self._list_or_watch)
        app.router.add_get("/api/v1/nodes/{name}", self._get)
        app.router.add_patch("/api/v1/nodes/{name}/status", self._patch)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.05, handler_cancellation=True)
        await self._runner.setup()
        site = web.TCPSite(self._runner, self._address, self._port, reuse_address=True)
        await site.start()
        self._port = site._server.sockets[0].getsockname()[1]


async def _serve(api):
    async with api:
        await asyncio.Event().wait()


def main(address, port, nodes, forbidden):
    def lines():
        return frozenset(Path(forbidden).read_text().splitlines())

    nodes = json.loads(Path(nodes).read_text())
    asyncio.run(_serve(ReviewingApi(*nodes, address=address, port=int(port), forbidden=lines)))


if __name__ == "__main__":
    main(*sys.argv[1:])
