"""The connections of the admin listener: how many there may be, and how long one may say nothing.

aiohttp has no deadline for a request head, so that a hundred half-sent ones would hold a hundred files for ever.
Its own page for malformed requests repeats the offending bytes, keys included, and logs them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from aiohttp import web

CONNECTIONS_MAX = 256
HEAD_TIMEOUT_S = 10.0  # to the end of the first request's head
KEEPALIVE_S = 75.0
LINGER_S = 0.5  # for the rest of a body that an answer did not wait for

Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


class AdminProtocol(web.RequestHandler):
    """One connection. `busy` while a request is handled; else `until_s` is when it has said nothing for too long."""

    __slots__ = ("busy", "group", "until_s")

    def __init__(self, server: web.Server, group: Connections) -> None:
        super().__init__(
            server,
            loop=asyncio.get_running_loop(),
            access_log=None,  # type: ignore[arg-type]  # the library documents None as "no access log"
            keepalive_timeout=KEEPALIVE_S,
            lingering_time=LINGER_S,
        )
        self.group, self.busy, self.until_s = group, False, 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.group.opened(self)

    def connection_lost(self, exc: BaseException | None) -> None:
        self.group.open.discard(self)
        super().connection_lost(exc)

    def abort(self) -> None:
        if self.transport is not None:
            self.transport.abort()

    def handle_error(
        self, request: web.BaseRequest, status: int = 500, exc: BaseException | None = None, message: str | None = None
    ) -> web.StreamResponse:
        answer = self.group.malformed(status)
        answer.force_close()
        return answer


class Connections(web.Server):
    """The server that makes them. `malformed` makes the answer to what is not HTTP, of a status."""

    def __init__(self, handler: Handler, malformed: Callable[[int], web.Response], clock: Callable[[], float]) -> None:
        super().__init__(self._handle)
        self.handler, self.malformed, self.clock = handler, malformed, clock
        self.open: set[AdminProtocol] = set()

    def __call__(self) -> web.RequestHandler:
        return AdminProtocol(self, self)

    def opened(self, protocol: AdminProtocol) -> None:
        """One more connection; the one that is too many ends at once."""
        protocol.until_s = self.clock() + HEAD_TIMEOUT_S
        self.open.add(protocol)
        if len(self.open) > CONNECTIONS_MAX:
            protocol.abort()

    def sweep(self) -> None:
        """End those that have said nothing for too long."""
        now = self.clock()
        for protocol in tuple(self.open):
            if not protocol.busy and now > protocol.until_s:
                protocol.abort()

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        protocol = request.protocol
        assert isinstance(protocol, AdminProtocol)
        protocol.busy = True
        try:
            return await self.handler(request)
        finally:
            protocol.busy = False
            protocol.until_s = self.clock() + KEEPALIVE_S
