"""The public listener without sockets: real connections, intake and exchanges over scripted transports."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import count
from typing import Any

from proxy.server.catalog import Catalog
from proxy.server.connection import ClientConnection
from proxy.server.intake import Intake, IntakeConfig
from proxy.server.public import ListenConfig, Listener
from proxy.server.tenancy import Tenancy, TenancyConfig
from proxy.wire.headers import HeadReader
from proxy.wire.priority import ClassRule, TenantRule
from tests.adapters.shell import CHAT, ScriptedTransport, Shell

ANYBODY = TenantRule("anonymous", "normal", "high")


def post(body: bytes = b'{"model":"m"}', path: str = CHAT, *lines: str, version: str = "1.1") -> bytes:
    head = [f"POST {path} HTTP/{version}", "host: proxy", *lines, f"content-length: {len(body)}", "", ""]
    return "\r\n".join(head).encode("latin-1") + body


def stream(*lines: str) -> bytes:
    return post(b'{"model":"m","stream":true}', CHAT, *lines)


def intake_of(shell: Shell, tenancy: TenancyConfig | None = None, **bounds: Any) -> Intake:
    config = IntakeConfig(
        classes=(ClassRule("high", -1, frozenset({"priority"})), ClassRule("normal", None, frozenset({"default"}))),
        max_body_bytes=4 << 20,
    )
    tenants = tenancy or TenancyConfig({}, {}, ANYBODY, ANYBODY)
    numbers = count(1)
    return Intake(
        replace(config, **bounds), Tenancy(tenants), HeadReader(), Catalog(shell.dispatcher, shell.clock),
        shell.dispatcher, shell.clock, lambda: f"made-{next(numbers)}", count(1000),
    )  # fmt: skip


async def until(what: Callable[[], object]) -> None:
    """Turn the loop until it holds."""
    loop = asyncio.get_running_loop()
    end_s = loop.time() + 5.0
    while not what():
        assert loop.time() < end_s
        await asyncio.sleep(0)


class Client:
    """One connection, as its client sees it."""

    def __init__(self, edge: Edge, peer: object = ("192.0.2.7", 1234)) -> None:
        self.edge = edge
        self.connection = ClientConnection(edge.listener)
        self.transport = ScriptedTransport(edge.shell.later, peer)
        self.transport.protocol = self.connection
        self.connection.connection_made(self.transport)

    def send(self, *pieces: bytes) -> Client:
        for piece in pieces:
            self.connection.data_received(piece)
            self.edge.shell.settle()
        return self

    def take(self) -> bytes:
        return self.transport.take()

    def statuses(self) -> list[int]:
        """Status of every answer written since the last look."""
        return [int(part[:3]) for part in self.take().split(b"HTTP/1.1 ")[1:]]

    def leave(self) -> None:
        self.connection.eof_received()
        self.transport.close()
        self.edge.shell.settle()


class Edge:
    """A listener that is not bound, before a shell."""

    def __init__(self, shell: Shell | None = None, intake: Intake | None = None, **listen: Any) -> None:
        self.shell = shell or Shell()
        self.errors: list[BaseException] = []
        shell = self.shell
        self.listener = Listener(
            ListenConfig(**listen), intake or intake_of(shell), shell.relay, shell.light, shell.dispatcher,
            shell.records.append, lambda _, error: self.errors.append(error), shell.clock,
        )  # fmt: skip

    def client(self, *pieces: bytes) -> Client:
        return Client(self).send(*pieces)

    def pass_time(self, seconds: float) -> None:
        """Look at the deadlines twice a second, as the listener's loop does."""
        until_s = self.shell.now + seconds
        while self.shell.now < until_s:
            self.shell.now = min(self.shell.now + 0.5, until_s)
            for connection in tuple(self.listener.connections):
                connection.sweep(self.shell.now)
            self.shell.settle()

    def outcomes(self) -> Sequence[str]:
        return [record.outcome.value for record in self.shell.records]
