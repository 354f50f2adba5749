"""A loopback server that answers each path with scripted bytes, for tests of what asks engines."""

from __future__ import annotations

import asyncio
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

HANG = b"HANG"  # never answers
RESET = b"RESET"  # ends the connection with RST
ENDLESS = b"ENDLESS"  # a body without end


def reply(body: bytes | str, status: int = 200, headers: str = "") -> bytes:
    content = body.encode() if isinstance(body, str) else body
    head = f"HTTP/1.1 {status} Status\r\nContent-Length: {len(content)}\r\n{headers}Connection: close\r\n\r\n"
    return head.encode() + content


NOT_FOUND = reply("{}", 404)


@dataclass
class ScriptedEngine:
    """`pages` may be changed while it runs. `asked` holds the path of each request, `heads` its whole head."""

    pages: dict[str, bytes] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    heads: list[str] = field(default_factory=list)
    port: int = 0
    scheme: str = "http"
    open: set[asyncio.StreamWriter] = field(default_factory=set)
    ended: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def url(self) -> str:
        return f"{self.scheme}://127.0.0.1:{self.port}"

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.open.add(writer)
        with suppress(ConnectionError):
            head = (await reader.read(65536)).decode("latin-1")  # on loopback a head comes in one piece
            path = head.partition(" ")[2].partition(" ")[0]
            self.asked.append(path)
            self.heads.append(head)
            await self._send(self.pages.get(path, NOT_FOUND), reader, writer)
        writer.close()
        with suppress(ConnectionError, ssl.SSLError):
            await writer.wait_closed()
        self.open.discard(writer)
        self.ended.set()

    async def close(self) -> None:
        """End what still runs: every connection is gone before the loop is."""
        while self.open:
            self.ended.clear()
            for writer in self.open:
                writer.transport.abort()
            await self.ended.wait()

    async def _send(self, script: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if script == HANG:
            await reader.read()
        elif script == RESET:
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        elif script == ENDLESS:
            writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
            while True:
                writer.write(b"x" * 65536)
                await writer.drain()
        else:
            writer.write(script)
            await writer.drain()


@asynccontextmanager
async def scripted_engine(
    pages: Mapping[str, bytes] | None = None, tls: ssl.SSLContext | None = None, host: str = "127.0.0.1"
) -> AsyncIterator[ScriptedEngine]:
    engine = ScriptedEngine(dict(pages or {}), scheme="https" if tls else "http")
    server = await asyncio.start_server(engine.answer, host, 0, ssl=tls)
    engine.port = server.sockets[0].getsockname()[1]
    try:
        yield engine
    finally:
        server.close()
        await engine.close()


async def unused_port() -> int:
    """A port of loopback that nobody listens on."""
    async with scripted_engine() as engine:
        return engine.port
