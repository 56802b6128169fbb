"""Somebody between a node and an etcd, who passes on each request and each answer, and does one thing to them.

Owns gRPC servers that know no message: bytes in, bytes out. Must not know what they mean.
"""

from urllib.parse import urlsplit

import grpc
from free_ports import free_ports

STREAMS = ("Watch", "LeaseKeepAlive")
PROPOSALS = ("Txn", "Put", "LeaseGrant", "LeaseRevoke", "Authenticate")


class Between(grpc.GenericRpcHandler):
    """`async with` serves; `endpoint` is its near end."""

    def __init__(self, endpoint):
        self._far = urlsplit(endpoint).netloc

    async def __aenter__(self):
        self._channel = grpc.aio.insecure_channel(self._far)
        self._server = grpc.aio.server()
        self._server.add_generic_rpc_handlers((self,))
        [port] = free_ports(1, "127.0.0.1")
        self._server.add_insecure_port(f"127.0.0.1:{port}")
        self.endpoint = f"http://127.0.0.1:{port}"
        await self._server.start()
        return self

    async def __aexit__(self, *_):
        await self._server.stop(None)
        await self._channel.close()

    def service(self, handler_call_details):
        """Of any method."""
        method = handler_call_details.method

        async def once(request, context):
            await self.asked(method.rpartition("/")[2], context)
            return await self._channel.unary_unary(method)(request)

        async def stream(requests, _):
            async for answer in self._channel.stream_stream(method)(requests):
                for each in self.answered(answer):
                    yield each

        if method.rpartition("/")[2] in STREAMS:
            return grpc.stream_stream_rpc_method_handler(stream)
        return grpc.unary_unary_rpc_method_handler(once)

    async def asked(self, name, context):
        """Before a request is passed on."""

    def answered(self, answer):
        """What becomes of an answer of a stream."""
        yield answer


class Doubled(Between):
    """Gives each answer of a stream twice."""

    told = 0
    """How many answers were given a second time."""

    def answered(self, answer):
        yield answer
        yield answer
        self.told += 1


class Lagging(Between):
    """A member that is behind with applying: it takes no proposal; reads, watches and keep-alives go on."""

    refused = 0

    async def asked(self, name, context):
        if name in PROPOSALS:
            self.refused += 1
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "etcdserver: too many requests")
