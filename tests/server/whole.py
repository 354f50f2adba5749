"""A whole process in the test's own loop: real sockets, an engine that answers when told, a log that is kept."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import orjson

from proxy.adapters.records import RequestRecord
from proxy.server.process import Process, open_recorder
from proxy.settings import Settings, load
from tests.adapters.shell import DONE, LAST_CHUNK, STREAM_HEAD, chunk, token
from tests.server.edge import until

Sections = dict[str, Any]
TOLD = STREAM_HEAD + chunk(token("stop")) + chunk(DONE) + LAST_CHUNK
LIST = orjson.dumps({"object": "list", "data": [{"id": "m", "owned_by": "engine"}]})


def settings(*upstreams: Sections, **sections: Any) -> Settings:
    base: Sections = {"listen": {"host": "127.0.0.1", "port": 0}, "admin": {"port": 0}}
    return load(None, base | {"upstreams": list(upstreams)} | sections, {})


def engine(url: str = "http://127.0.0.1:9", name: str = "e", **more: Any) -> Sections:
    return {"name": name, "url": url, "engine": "openai", "models": ["m"], **more}


class Log:
    """Keeps the lines of requests."""

    def __init__(self) -> None:
        self.records: list[RequestRecord] = []
        self.dropped = 0
        self.request = self.records.append
        self.adjusted: list[tuple[int, float]] = []

    def adjust(self, level: int, sample_rate: float) -> None:
        self.adjusted.append((level, sample_rate))

    def take_dropped(self) -> int:
        dropped, self.dropped = self.dropped, 0
        return dropped


class Engine:
    """A real socket: lists the model m; each POST waits until `go`, then streams one token."""

    def __init__(self) -> None:
        self.go = asyncio.Event()
        self.asked = asyncio.Event()
        self.url = ""
        self.serving = 0

    async def __aenter__(self) -> Engine:
        self.server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self.server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        self.server.close()
        self.go.set()
        await until(lambda: not self.serving)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.serving += 1
        head = await reader.readuntil(b"\r\n\r\n")
        if head.startswith(b"POST"):
            self.asked.set()
            await self.go.wait()
            writer.write(TOLD)
        else:
            line = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\ncontent-type: application/json\r\n\r\n%b"
            writer.write(line % (len(LIST), LIST))
        writer.close()
        self.serving -= 1


class World:
    """A process that has started, what it reads at a reload, and clients of it."""

    def __init__(self, given: Settings, recorder: Path | None = None) -> None:
        self.log = Log()
        self.writers: list[asyncio.StreamWriter] = []
        self.loads: list[Settings | Exception] = []
        self.process = Process(given, self.log, self._load, True, open_recorder(recorder))  # type: ignore[arg-type]

    def _load(self) -> Settings:
        found = self.loads.pop(0)
        if isinstance(found, Exception):
            raise found
        return found

    async def connect(self, sent: bytes) -> asyncio.StreamReader:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.process.listener.port)
        writer.write(sent)
        self.writers.append(writer)
        return reader

    async def close(self) -> None:
        for writer in self.writers:
            writer.close()
        await self.process.close()

    def outcomes(self) -> list[str]:
        return [record.outcome.value for record in self.log.records]


def play(
    scene: Callable[[World], Coroutine[Any, Any, None]], given: Settings | None = None, recorder: Path | None = None
) -> World:
    async def whole() -> World:
        world = World(given or settings(engine()), recorder)
        try:
            await scene(world)
        finally:
            await world.close()
        return world

    return asyncio.run(whole())
