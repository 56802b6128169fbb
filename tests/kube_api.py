"""An API server for tests: nodes and pods over real HTTP, with lists in pages, watches, patches, and faults on demand.

Owns the objects, their versions and all that it was asked. Of Kubernetes it knows what stands under `/api/v1`.
"""

import asyncio
import contextlib
import copy
import json
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web
from free_ports import free_ports

FLANNEL = "flannel.alpha.coreos.com/"


def node(name, *cidrs, annotations=None, created="2026-01-01T00:00:00Z", uid="", **more):
    """A Node object. `annotations` without a prefix are flannel's."""
    texts = {key if "/" in key else FLANNEL + key: text for key, text in (annotations or {}).items()}
    meta = {"name": name, "uid": uid or f"uid-{name}", "creationTimestamp": created}
    spec = {"podCIDR": cidrs[0], "podCIDRs": list(cidrs)} if cidrs else {}
    return {"metadata": {**meta, **({"annotations": texts} if texts else {})}, "spec": spec, "status": {}, **more}


def joined(name, cidr, public_ip, *more_cidrs, created="2026-01-01T00:00:00Z", **annotations):
    """A Node that flannel's udp backend has announced."""
    texts = {"kube-subnet-manager": "true", "backend-type": "", "backend-data": "null", "public-ip": public_ip}
    more = {key.replace("_", "-"): text for key, text in annotations.items()}
    return node(name, cidr, *more_cidrs, annotations={**texts, **more}, created=created)


@dataclass
class Asked:
    """One request."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: Any = None

    @property
    def kind(self):
        """`LIST`, `WATCH`, `GET` or `PATCH`."""
        if self.method != "GET":
            return self.method
        return "WATCH" if "watch" in self.query else "LIST" if self.path == "/api/v1/nodes" else "GET"


@dataclass
class Fault:
    """What becomes of the next requests of a kind."""

    kind: str
    code: int = 0
    """The HTTP status; 0: the connection is cut."""
    message: str = ""
    times: int = 1
    after: int = 0
    """Requests of the kind to let pass before."""
    retry_after: str = ""
    """The header Retry-After."""


@dataclass(eq=False)
class Watcher:
    """One open watch."""

    transport: asyncio.Transport
    lines: asyncio.Queue = field(default_factory=asyncio.Queue)


class KubeApi:
    """One API server; `async with` serves it."""

    def __init__(self, *nodes, address="127.0.0.1", port=0, tls=None):
        """`tls`: the server's side of it, an ssl.SSLContext."""
        self.nodes: dict[str, dict] = {}
        self.pods: dict[str, dict] = {}
        self.version = 100
        self.forgotten = 0
        """A watch from before this version is told 410."""
        self.token: str | None = None
        """What a bearer token has to be."""
        self.endless = False
        """Watches do not end at the time that was asked for."""
        self.silent = False
        """Requests are taken and never answered."""
        self.twice = False
        """Watches are told everything a second time."""
        self.answer = asyncio.Event()
        """Set while a PATCH, once done, is answered."""
        self.answer.set()
        self.torn = 0
        """So many of the next lists break off in the middle."""
        self.asked: list[Asked] = []
        self._address, self._port, self._tls = address, port, tls
        self._faults: list[Fault] = []
        self._history: list[tuple[int, dict]] = []
        self._watchers: set[Watcher] = set()
        self._lists: dict[str, tuple[str, list]] = {}
        self._runner: web.AppRunner | None = None
        self._news = asyncio.Condition()
        for it in nodes:
            self.put(it)

    @property
    def url(self):
        return f"{'https' if self._tls else 'http'}://{self._address}:{self._port}"

    async def __aenter__(self):
        await self.start()
        return self

    async def __aexit__(self, *_):
        await self.stop()

    def app(self):
        """What is served; whoever serves more adds to it."""
        app = web.Application()
        app.router.add_get("/api/v1/nodes", self._list_or_watch)
        app.router.add_get("/api/v1/nodes/{name}", self._get)
        app.router.add_patch("/api/v1/nodes/{name}/status", self._patch)
        app.router.add_get("/api/v1/namespaces/{namespace}/pods/{name}", self._pod)
        return app

    async def start(self):
        self._port = self._port or free_ports(1, self._address)[0]
        self._runner = web.AppRunner(self.app(), access_log=None, shutdown_timeout=0.05, handler_cancellation=True)
        await self._runner.setup()
        site = web.TCPSite(self._runner, self._address, self._port, ssl_context=self._tls, reuse_address=True)
        await site.start()

    async def stop(self):
        """Away, and every connection with it."""
        self.drop_watches()
        if self._runner is not None:
            await self._runner.cleanup()
        self._runner = None

    def put(self, it):
        """Adds a node or replaces it."""
        name = it["metadata"]["name"]
        self._changed("MODIFIED" if name in self.nodes else "ADDED", copy.deepcopy(it))

    def change(self, name, change):
        """Changes a node in place: `change(node)`."""
        it = copy.deepcopy(self.nodes[name])
        change(it)
        self._changed("MODIFIED", it)

    def heartbeat(self, name):
        """What a kubelet says all the time."""
        self.change(name, lambda it: it["status"].update(heartbeat=self.version))

    def delete(self, name):
        self._changed("DELETED", copy.deepcopy(self.nodes[name]))

    def bookmark(self):
        """Tells the watchers how far they are."""
        self._tell({"type": "BOOKMARK", "object": {"kind": "Node", "metadata": {"resourceVersion": str(self.version)}}})

    def fail(self, kind, code=0, message="", **more):
        """Makes the next requests of a kind fail; `more` of Fault."""
        self._faults.append(Fault(kind, code, message, **more))

    def error_event(self, code, message):
        """An error in the middle of the watches."""
        self._tell({"type": "ERROR", "object": {"kind": "Status", "code": code, "message": message}})

    def raw(self, data):
        """Bytes in the middle of the watches."""
        for watcher in self._watchers:
            watcher.lines.put_nowait(data)

    def end_watches(self):
        """In good order."""
        self.raw(None)

    def drop_watches(self):
        """Without a word."""
        for watcher in self._watchers:
            watcher.transport.abort()

    def of(self, kind):
        """What was asked, of one kind."""
        return [it for it in self.asked if it.kind == kind]

    def annotations(self, name):
        """Flannel's annotations of a node, without the prefix."""
        texts = self.nodes[name]["metadata"].get("annotations", {})
        return {key.removeprefix(FLANNEL): text for key, text in texts.items()}

    async def until(self, condition, deadline_s=20.0):
        """Waits for something to be asked or changed."""
        async with asyncio.timeout(deadline_s), self._news:
            await self._news.wait_for(condition)

    async def asked_for(self, kind, count):
        """Waits until so many requests of a kind have come."""
        await self.until(lambda: len(self.of(kind)) >= count)

    async def watched(self, count=1):
        """Waits until so many watches stand."""
        await self.until(lambda: len(self._watchers) >= count)

    def _changed(self, kind, it):
        self.version += 1
        it["metadata"]["resourceVersion"] = str(self.version)
        name = it["metadata"]["name"]
        if kind == "DELETED":
            del self.nodes[name]
        else:
            self.nodes[name] = it
        event = {"type": kind, "object": copy.deepcopy(it)}
        self._history.append((self.version, event))
        self._tell(event)

    def _tell(self, event):
        self.raw((1 + self.twice) * (json.dumps(event).encode() + b"\n"))

    async def _note(self):
        async with self._news:
            self._news.notify_all()

    async def _admit(self, request):
        """Notes the request; raises what it is to be answered with if not as asked."""
        body = json.loads(await request.read() or b"null")
        asked = Asked(request.method, request.path, dict(request.query), dict(request.headers), body)
        self.asked.append(asked)
        await self._note()
        if self.silent:
            await asyncio.Event().wait()
        if self.token is not None and request.headers.get("Authorization") != f"Bearer {self.token}":
            raise _refusal(401, "Unauthorized")
        for fault in self._faults:
            if fault.kind != asked.kind or not fault.times:
                continue
            if fault.after:
                fault.after -= 1
                continue
            fault.times -= 1
            if not fault.code:
                request.transport.abort()
                raise ConnectionResetError
            raise _refusal(fault.code, fault.message, {"Retry-After": fault.retry_after} if fault.retry_after else {})
        return asked

    async def _list_or_watch(self, request):
        asked = await self._admit(request)
        if asked.kind == "WATCH":
            return await self._watch(request)
        whole = self._list(request)
        if not self.torn:
            return whole
        self.torn -= 1
        half = web.StreamResponse(headers={"Content-Type": "application/json", "Content-Length": str(len(whole.body))})
        await half.prepare(request)
        await half.write(whole.body[: len(whole.body) // 2])
        request.transport.close()  # what was written is sent before
        return half

    def _list(self, request):
        limit, token = int(request.query.get("limit", 0)), request.query.get("continue")
        version, items = self._lists.pop(token) if token else (str(self.version), list(self.nodes.values()))
        page, rest = (items[:limit], items[limit:]) if limit else (items, [])
        meta = {"resourceVersion": version}
        if rest:
            meta["continue"] = token = f"{version}-{len(rest)}"
            self._lists[token] = (version, rest)
        return web.json_response({"kind": "NodeList", "metadata": meta, "items": page})

    async def _watch(self, request):
        since = int(request.query.get("resourceVersion") or 0)
        if since < self.forgotten:
            raise _refusal(410, "too old resource version")
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        response.enable_chunked_encoding()
        await response.prepare(request)
        watcher = Watcher(request.transport)
        for version, event in self._history:
            if version > since:
                watcher.lines.put_nowait(json.dumps(event).encode() + b"\n")
        self._watchers.add(watcher)
        await self._note()
        try:
            with contextlib.suppress(TimeoutError, ConnectionError):
                async with asyncio.timeout(None if self.endless else float(request.query.get("timeoutSeconds", 3600))):
                    while (line := await watcher.lines.get()) is not None:
                        await response.write(line)
        finally:
            self._watchers.discard(watcher)
        await response.write_eof()
        return response

    async def _get(self, request):
        await self._admit(request)
        return web.json_response(self._found(self.nodes, "nodes", request.match_info["name"]))

    async def _pod(self, request):
        await self._admit(request)
        return web.json_response(self._found(self.pods, "pods", request.match_info["name"]))

    async def _patch(self, request):
        asked = await self._admit(request)
        it = copy.deepcopy(self._found(self.nodes, "nodes", request.match_info["name"]))
        it["metadata"].setdefault("annotations", {}).update(asked.body.get("metadata", {}).get("annotations", {}))
        conditions = {one["type"]: one for one in it["status"].get("conditions", [])}
        conditions |= {one["type"]: one for one in asked.body.get("status", {}).get("conditions", [])}
        it["status"]["conditions"] = list(conditions.values())
        self._changed("MODIFIED", it)
        await self._note()
        await self.answer.wait()
        return web.json_response(it)

    @staticmethod
    def _found(objects, kind, name):
        if name not in objects:
            raise _refusal(404, f'{kind} "{name}" not found')
        return objects[name]


def _refusal(code, message, headers=None):
    """What an API server says when it says no."""
    status = {"kind": "Status", "status": "Failure", "code": code, "message": message}
    refusal = web.HTTPException(text=json.dumps(status), content_type="application/json", headers=headers)
    refusal.set_status(code)
    return refusal
