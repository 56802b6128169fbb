"""The API server of the tests, with what `doctor` asks beyond it: reviews of what we are allowed to do, and the time.

Run as a program it serves nodes as kube_api.py does, and obeys a file of orders as it is at the moment:
`doctor_api.py ADDRESS PORT NODES.json ORDERS`. An order is a line: `forbid patch nodes/status` refuses such requests,
those under way included, and says so in a review; `clock 3600` makes its clock an hour fast.
"""

import asyncio
import json
import sys
import time
from email.utils import formatdate
from pathlib import Path

from aiohttp import web
from kube_api import KubeApi

REVIEWS = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
LOOK_S = 0.05


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

    def app(self):
        app = super().app()
        app.router.add_post(REVIEWS, self._review)
        return app


class ObedientApi(ReviewingApi):
    """One that follows a file of orders."""

    def __init__(self, *nodes, orders, **options):
        super().__init__(*nodes, forbidden=lambda: self._ordered("forbid "), **options)
        self._orders = Path(orders)

    def _ordered(self, begin):
        return {line.removeprefix(begin) for line in self._orders.read_text().splitlines() if line.startswith(begin)}

    def app(self):
        app = super().app()
        app.on_response_prepare.append(self._dated)
        app.middlewares.append(self._allowed)
        return app

    async def obey(self):
        """Ends watches that are forbidden meanwhile; the rest is looked up at each request."""
        while True:
            if "watch nodes" in self._forbidden():
                self.drop_watches()
            await asyncio.sleep(LOOK_S)

    async def _dated(self, _request, response):
        for ahead_s in self._ordered("clock "):
            response.headers["Date"] = formatdate(time.time() + int(ahead_s), usegmt=True)

    @web.middleware
    async def _allowed(self, request, handler):
        if request.path != REVIEWS and (right := _right(request)) in self._forbidden():
            status = {"kind": "Status", "status": "Failure", "code": 403, "message": f"{right} is forbidden"}
            return web.json_response(status, status=403)
        return await handler(request)


def _right(request):
    """What RBAC calls a request."""
    if request.method == "PATCH":
        return "patch nodes/status"
    if request.path != "/api/v1/nodes":
        return "get nodes"
    return "watch nodes" if "watch" in request.query else "list nodes"


async def _serve(api):
    async with api:
        await api.obey()


def main(address, port, nodes, orders):
    nodes = json.loads(Path(nodes).read_text())
    asyncio.run(_serve(ObedientApi(*nodes, address=address, port=int(port), orders=orders)))


if __name__ == "__main__":
    main(*sys.argv[1:])
