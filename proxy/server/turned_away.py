"""A client that connects while the process is short of files: it is told so with 503, and its file is free again.

Without this the event loop would drop it without a word, as it does with those for whom there is no file at all. The
answer waits for the first bytes of a request, or `WAIT_S`: clients take none before they have asked.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from proxy.server.errors import BY_OUTCOME, render
from proxy.types import Outcome

WAIT_S: Final = 1.0
RETRY_AFTER_S: Final = 5.0


def answer(request_id: bytes) -> bytes:
    detail = "The proxy is short of open files."
    return render(BY_OUTCOME[Outcome.NO_UPSTREAM], "openai", request_id, True, RETRY_AFTER_S, detail)[1]


class TurnedAway(asyncio.Protocol):
    """Takes the place of the connection's protocol. `gone` hears of its end."""

    def __init__(self, transport: asyncio.Transport, request_id: str, now: float, gone: Callable[[TurnedAway], None]):
        self.transport, self.request_id, self.since_s, self.gone = transport, request_id, now, gone
        self.told = False

    def data_received(self, data: bytes) -> None:
        if not self.told:
            self.told = True
            self.transport.write(answer(self.request_id.encode()))
            self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self.gone(self)

    def sweep(self, now: float) -> None:
        """Nobody is waited for twice: neither for a request nor for a reader of the answer."""
        if now - self.since_s > WAIT_S:
            self.transport.abort()
