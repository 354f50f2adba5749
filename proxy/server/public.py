"""The public listener: the sockets, the set of connections, their deadlines, and the way out of service."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final, cast

from proxy.adapters.forward import Exchange
from proxy.adapters.inbound import Inbound
from proxy.adapters.records import RequestRecord
from proxy.adapters.relay import Relay
from proxy.adapters.sockets import reserve, spare_files, watch_peer
from proxy.dispatcher import Dispatcher
from proxy.server.connection import ClientConnection
from proxy.server.intake import Intake
from proxy.server.reading import Home
from proxy.server.request_ids import RequestIds
from proxy.server.turned_away import TurnedAway
from proxy.types import Work

SWEEP_S = 0.5
BACKLOG: Final = 4096
ENTER_S = 1.0  # for the TLS handshakes of those who come in last
ACCEPTED_S: Final = 0.01  # for the loop to introduce those whom it has accepted already: it does so in a later turn


@dataclass(frozen=True, slots=True)
class ListenConfig:
    """Address and deadlines, in seconds. `tls` None: plain HTTP."""

    host: str = "127.0.0.1"
    port: int = 8080
    max_connections: int = 10_000
    head_timeout_s: float = 10.0
    write_timeout_s: float = 30.0
    reuse_port: bool = False
    tls: ssl.SSLContext | None = None


class Listener(Home):
    """What client connections share. `light` relays routes that need no permit."""

    def __init__(
        self,
        config: ListenConfig,
        intake: Intake,
        relay: Relay,
        light: Relay,
        account: Dispatcher,
        record: Callable[[RequestRecord], None],
        failed: Callable[[str, BaseException], None],
        clock: Callable[[], float],
        short: Callable[[str], None] = lambda side: None,
        new_id: Callable[[], str] | None = None,
    ) -> None:
        self.config, self.intake, self.relay, self.light = config, intake, relay, light
        self.new_id = new_id or RequestIds().next
        self.account, self.record, self.failed, self.clock, self.short = account, record, failed, clock, short
        self.head_timeout_s, self.write_timeout_s = config.head_timeout_s, config.write_timeout_s
        self.connections: dict[ClientConnection, None] = {}  # in the order of their coming
        self.held: deque[ClientConnection] = deque()  # over `max_connections`: open, not yet read
        self.turned_away: set[TurnedAway] = set()
        self.draining = False
        self._server: Any = None  # asyncio.Server, or uvloop's, whose `sockets` is a list

    def __repr__(self) -> str:
        return f"Listener({self.config.host}:{self.port} connections={len(self.connections)})"

    async def start(self) -> None:
        """Listen. OSError when the address cannot be had."""
        self._server = await asyncio.get_running_loop().create_server(
            self._protocol,
            self.config.host,
            self.config.port,
            ssl=self.config.tls,
            ssl_handshake_timeout=self.config.head_timeout_s if self.config.tls else None,
            backlog=BACKLOG,
            reuse_port=self.config.reuse_port or None,
        )
        for one in self._server.sockets:
            watch_peer(one, give_up_unacknowledged=False)

    def _protocol(self) -> asyncio.Protocol:
        return cast(asyncio.Protocol, ClientConnection(self))

    @property
    def port(self) -> int:
        sockets = self._server.sockets if self._server is not None else ()
        return int(sockets[0].getsockname()[1]) if sockets else self.config.port

    def relay_for(self, inbound: Inbound) -> Relay:
        route = inbound.route
        return self.light if route is not None and route.work is Work.LIGHT else self.relay

    # ---- connections ----
    def sweep(self) -> None:
        """Look at the deadlines of every connection."""
        now = self.clock()
        for connection in tuple(self.connections):
            try:
                connection.sweep(now)
            except Exception as error:
                self.failed("connection", error)
                abort(connection)
        for late in tuple(self.turned_away):
            late.sweep(now)

    def opened(self, connection: ClientConnection) -> None:
        if self._is_short(connection):
            return
        self.connections[connection] = None
        if len(self.connections) - len(self.held) > self.config.max_connections:
            self.held.append(connection)
            connection.set_reading(False)

    def _is_short(self, connection: ClientConnection) -> bool:
        """A client that takes one of the last files is turned away, the very last ones without a word."""
        transport = connection.transport
        own = None if transport is None else transport.get_extra_info("socket")
        if own is None or (spare := spare_files(own.fileno())) >= reserve():
            return False
        assert transport is not None
        self.short("client")
        late = TurnedAway(transport, self.new_id(), self.clock(), self.turned_away.discard)
        self.turned_away.add(late)
        transport.set_protocol(late)
        if spare < reserve() // 2:
            transport.abort()
        return True

    def closed(self, connection: ClientConnection) -> None:
        self.connections.pop(connection, None)
        if connection in self.held:
            self.held.remove(connection)
        elif self.held and len(self.connections) - len(self.held) < self.config.max_connections:
            self.held.popleft().set_reading(True)

    async def run(self) -> None:
        """Look at every deadline twice a second, until cancelled."""
        while True:
            await asyncio.sleep(SWEEP_S)
            await asyncio.sleep(0)  # after a standstill, what clients sent meanwhile is read before it is missed
            self.sweep()

    # ---- out of service ----
    def let_go(self) -> None:
        """From now on no connection is kept for a further request."""
        self.draining = True
        self.sweep()

    async def close_sockets(self) -> None:
        """Nobody else comes in. The kernel resets what it holds for a socket that is closed: those are let in first."""
        self.let_go()
        listening = [socket.socket(fileno=os.dup(one.fileno())) for one in self._server.sockets] if self._server else []
        self.stop_listening()
        waiting = [peer for one in listening for peer in accept_all(one)]
        loop = asyncio.get_running_loop()
        entering = [loop.connect_accepted_socket(self._protocol, peer, ssl=self.config.tls) for peer in waiting]
        with suppress(TimeoutError):
            async with asyncio.timeout(ENTER_S):
                await asyncio.gather(*entering, return_exceptions=True)
        await asyncio.sleep(ACCEPTED_S)

    def stop_listening(self) -> None:
        if self._server is not None:
            self._server.close()

    def stop_accepting(self) -> None:
        """Close the listening sockets, and refuse what open connections still send."""
        self.intake.draining = True
        self.stop_listening()
        self.let_go()

    def quiet(self) -> bool:
        """Whether connections are open that carry no request: one may be on its way."""
        return any(connection.exchange is None and not connection.inbox for connection in self.connections)

    def busy(self) -> list[Exchange]:
        """Exchanges that have not ended."""
        return [connection.exchange for connection in self.connections if connection.exchange is not None]

    def abort(self) -> None:
        for connection in tuple(self.connections):
            abort(connection)


def abort(connection: ClientConnection) -> None:
    if connection.transport is not None:
        connection.transport.abort()


def accept_all(listening: socket.socket) -> Iterator[socket.socket]:
    """Every connection that waits at the socket, which is closed right after the last."""
    with listening:
        listening.setblocking(False)
        while True:
            try:
                peer, _ = listening.accept()
            except OSError:  # BlockingIOError: nobody waits
                return
            peer.setblocking(False)
            yield peer
