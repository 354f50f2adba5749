from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from aiohttp import web

from proxy.server import admin_connections
from proxy.server.admin_connections import HEAD_TIMEOUT_S, KEEPALIVE_S, Connections

HEALTH = b"GET /health HTTP/1.1\r\nHost: a\r\n\r\n"


class Bench:
    """A listener on a clock that stands still; a request for /wait is answered when `go` is set."""

    def __init__(self) -> None:
        self.now = 100.0
        self.begun, self.go = asyncio.Event(), asyncio.Event()
        self.connections = Connections(self.handle, lambda status: web.Response(status=status), lambda: self.now)

    async def handle(self, request: web.BaseRequest) -> web.Response:
        if request.path == "/wait":
            self.begun.set()
            await self.go.wait()
        return web.Response(text="fine")

    async def connect(self, sent: bytes = b"") -> asyncio.StreamReader:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        self.writers.append(writer)
        writer.write(sent)
        await asyncio.sleep(0)
        return reader

    async def __aenter__(self) -> Bench:
        self.writers: list[asyncio.StreamWriter] = []
        self.runner = web.ServerRunner(self.connections, shutdown_timeout=0.1)
        await self.runner.setup()
        await web.TCPSite(self.runner, "127.0.0.1", 0).start()
        self.port = self.runner.addresses[0][1]
        return self

    async def __aexit__(self, *_: object) -> None:
        for writer in self.writers:
            writer.close()
        await self.runner.cleanup()

    async def settled(self, count: int) -> None:
        async with asyncio.timeout(5):
            while len(self.connections.open) != count:  # noqa: ASYNC110 - the kernel's turn
                await asyncio.sleep(0)

    def later(self, seconds: float) -> None:
        self.now += seconds
        self.connections.sweep()


def play(scene: Callable[[Bench], Coroutine[Any, Any, None]]) -> None:
    async def whole() -> None:
        async with Bench() as bench:
            await scene(bench)

    asyncio.run(whole())


async def ended(reader: asyncio.StreamReader) -> bool:
    try:
        async with asyncio.timeout(5):
            return await reader.read() == b""
    except ConnectionResetError:
        return True


def test_a_head_that_never_becomes_whole_has_a_deadline() -> None:
    async def scene(bench: Bench) -> None:
        reader = await bench.connect(HEALTH[:-2])
        await bench.settled(1)
        bench.later(HEAD_TIMEOUT_S - 1)
        assert len(bench.connections.open) == 1
        bench.later(2)
        assert await ended(reader)
        await bench.settled(0)

    play(scene)


def test_what_is_answered_is_kept_for_a_while_and_what_is_at_work_as_long_as_it_takes() -> None:
    async def scene(bench: Bench) -> None:
        idle, busy = await bench.connect(HEALTH), await bench.connect(HEALTH.replace(b"/health", b"/wait"))
        assert b"200 OK" in await idle.readuntil(b"fine")
        await bench.begun.wait()
        bench.later(KEEPALIVE_S - 1)
        assert len(bench.connections.open) == 2
        bench.later(2)
        assert await ended(idle)
        bench.go.set()
        assert b"200 OK" in await busy.readuntil(b"fine")

    play(scene)


def test_one_too_many_is_not_let_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admin_connections, "CONNECTIONS_MAX", 2)

    async def scene(bench: Bench) -> None:
        await bench.connect()
        early = await bench.connect(HEALTH)
        await bench.settled(2)
        late = await bench.connect()
        assert await ended(late)
        assert b"200 OK" in await early.readuntil(b"fine")

    play(scene)
