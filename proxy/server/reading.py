"""What llhttp tells of one client connection becomes `Inbound` objects, in the order in which they came."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable
from typing import Any, Final

import httptools

from proxy.adapters.forward import Exchange
from proxy.adapters.inbound import Inbound
from proxy.adapters.records import RequestRecord
from proxy.adapters.relay import Relay, Sink
from proxy.dispatcher import Dispatcher
from proxy.server.intake import Intake, Rejected
from proxy.wire.errors import BadRequest

PIPELINED_MAX: Final = 1000  # requests of one connection, with the one that runs
SPENT: Final = httptools.HttpRequestParser(object())  # of a connection that is over: its own would keep it alive


class Crowded(Exception):  # noqa: N818 - the client's doing
    """More requests were sent at once than one connection may have waiting."""


class Home(ABC):
    """What a connection needs of its listener. No protocol: compiled, every attribute of one is looked up by name."""

    intake: Intake
    account: Dispatcher
    record: Callable[[RequestRecord], None]
    failed: Callable[[str, BaseException], None]
    clock: Callable[[], float]
    head_timeout_s: float
    write_timeout_s: float
    new_id: Callable[[], str]
    draining: bool

    @abstractmethod
    def relay_for(self, inbound: Inbound) -> Relay: ...
    @abstractmethod
    def opened(self, connection: Any) -> None: ...
    @abstractmethod
    def closed(self, connection: Any) -> None: ...


class RequestReader(Sink):
    """The parser's callbacks and what they fill."""

    # fmt: off
    __slots__ = (
        "bad_upload", "client_ip", "exchange", "head_bytes", "inbox", "listener", "parser", "parsing",
    )
    # fmt: on

    def __init__(self, listener: Home) -> None:
        self.listener = listener
        self.client_ip = b"unknown"
        self.parsing: Inbound | None = None  # its head or body is still coming
        self.inbox: deque[Inbound] = deque()  # heads complete, in order; the first one is being served
        self.exchange: Exchange | None = None
        self.bad_upload: Rejected | None = None
        self.head_bytes = 0
        self.parser = httptools.HttpRequestParser(self)

    def on_message_begin(self) -> None:
        self.parsing = Inbound(self.listener.clock(), self.client_ip)

    def on_url(self, target: bytes) -> None:
        assert self.parsing is not None
        self.parsing.target += target

    def on_header(self, name: bytes, value: bytes) -> None:
        inbound = self.parsing
        assert inbound is not None
        if not self.inbox or self.inbox[-1] is not inbound:  # else a trailer: dropped, never merged
            inbound.headers.append((name, value))

    def on_headers_complete(self) -> None:
        inbound = self.parsing
        assert inbound is not None
        inbound.method = self.parser.get_method()
        inbound.version = self.parser.get_http_version()
        inbound.keep_alive = self.parser.should_keep_alive() and not self.listener.draining
        inbound.head_bytes, self.head_bytes = self.head_bytes, 0
        self.inbox.append(inbound)
        if len(self.inbox) > PIPELINED_MAX:
            raise Crowded

    def on_body(self, piece: bytes) -> None:
        inbound = self.parsing
        assert inbound is not None
        inbound.body_bytes += len(piece)
        exchange = self.exchange
        if exchange is None or exchange.inbound is not inbound:
            inbound.body.append(piece)
            return
        self._scan_upload(inbound, piece)
        if exchange.upload_started:
            exchange.upload(piece, last=False)
        else:
            inbound.body.append(piece)

    def _scan_upload(self, inbound: Inbound, piece: bytes) -> None:
        """A second `model` further down would let the engine run another model than the one that was allowed."""
        try:
            if inbound.scanner is not None and self.bad_upload is None:
                inbound.scanner.feed(piece)
        except BadRequest as bad:
            self.bad_upload = Rejected.of(bad)

    def on_message_complete(self) -> None:
        inbound, self.parsing = self.parsing, None
        assert inbound is not None
        inbound.complete = True
        if self.exchange is not None and self.exchange.inbound is inbound:
            self.exchange.upload(b"", last=True)
