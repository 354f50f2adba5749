"""Connections of bytes between protocols, as TCP makes them: delays, pieces, half-close, reset, back-pressure.

What is written is cut into any pieces and arrives in order, each after a delay on a grid of 10 ms and up to three
further turns of the loop, so that arrivals, timers and departures coincide in every possible order.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from random import Random
from typing import Any

DELAYS_S = (0.0, 0.0, 0.01, 0.01, 0.02, 0.05)
KERNEL_BYTES = 1024  # written bytes that the kernel takes over: sent, as far as the writer knows
HOPS = 3


class Ether:
    """The loop and the chance that all links share."""

    def __init__(self, loop: asyncio.AbstractEventLoop, rng: Random) -> None:
        self.loop, self.rng = loop, rng

    def later(self, what: Callable[[], object], delay_s: float | None = None) -> None:
        """Call `what` after a delay on the grid and a few turns."""
        if delay_s is None:
            delay_s = self.rng.choice(DELAYS_S)
        hops = self.rng.randrange(HOPS + 1)
        self.loop.call_later(delay_s, self._hop, what, hops)

    async def wait(self, seconds: float) -> None:
        """Let virtual time pass."""
        over = self.loop.create_future()
        timer = self.loop.call_later(seconds, over.set_result, None)
        try:
            await over
        finally:
            timer.cancel()

    def _hop(self, what: Callable[[], object], hops: int) -> None:
        if hops:
            self.loop.call_soon(self._hop, what, hops - 1)
        else:
            what()

    def pair(self, here: Any, there: Any, peer_name: str) -> tuple[End, End]:
        """Two ends of a connection; `peer_name` is the address of `there` as `here` sees it."""
        one, two = End(self, here, peer_name), End(self, there, "192.0.2.1")
        one.peer, two.peer = two, one
        there.connection_made(two)
        here.connection_made(one)
        return one, two


class End(asyncio.Transport):
    """One end. `delivered` counts the bytes that the other side has read."""

    def __init__(self, ether: Ether, protocol: Any, peer_name: str) -> None:
        super().__init__({"peername": (peer_name, 40_000)})
        self.ether, self.protocol = ether, protocol
        self.peer: End = self
        self.queue: deque[bytes] = deque()
        self.delivered = self.written = 0
        self.reading = True
        self.ended = self.lost = self.fin = self.fin_sent = self.moving = self.full = False
        self.high = KERNEL_BYTES

    def __repr__(self) -> str:
        state = "lost" if self.lost else "ended" if self.ended else "open"
        return f"End({type(self.protocol).__name__} {state} unsent={self.get_write_buffer_size()})"

    # ---- what protocols call ----
    def is_closing(self) -> bool:
        return self.ended

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Buffers are small here, so that they fill."""

    def get_write_buffer_size(self) -> int:
        return max(0, sum(map(len, self.queue)) - KERNEL_BYTES)

    def write(self, data: Any) -> None:
        if self.ended or self.fin:
            return
        self.queue.append(bytes(data))
        self.written += len(data)
        self._move()
        if not self.full and self.get_write_buffer_size() > self.high:
            self.full = True
            self.protocol.pause_writing()

    def writelines(self, list_of_data: Any) -> None:
        self.write(b"".join(list_of_data))

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        self.fin = True
        self._move()

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True
        self.peer._move()

    def close(self) -> None:
        if self.ended:
            return
        self.ended = self.fin = True
        self._move()
        self._leave_when_sent()

    def abort(self) -> None:
        if self.lost:
            return
        self.ended = True
        self.queue.clear()
        self.ether.later(lambda: self.peer._break())
        self._lose(None)

    # ---- what the wire does ----
    def _move(self) -> None:
        if self.moving or (self.lost and not self.fin):
            return
        if not (self.peer.reading or self.peer.ended):
            return
        if self.queue:
            self.moving = True
            self.ether.later(self._arrive)
        elif self.fin and not self.fin_sent:
            self.fin_sent = True
            self.ether.later(self.peer._half_closed)

    def _arrive(self) -> None:
        self.moving = False
        if not self.queue:
            return
        if self.peer.ended:  # nobody reads there any more
            self.queue.clear()
            self.ether.later(self._break)
            return
        if not self.peer.reading:
            return
        data = self._piece()
        self.delivered += len(data)
        self._move()
        if self.full and not self.ended and self.get_write_buffer_size() <= self.high // 4:
            self.full = False
            self.protocol.resume_writing()
        self._leave_when_sent()
        self.peer.protocol.data_received(data)

    def _piece(self) -> bytes:
        rng = self.ether.rng
        way = rng.random()
        if way < 0.5:  # all that is there, in one read
            data = b"".join(self.queue)
            self.queue.clear()
            return data
        data = self.queue.popleft()
        if way < 0.8 or len(data) < 2:
            return data
        cut = rng.randrange(1, len(data))
        self.queue.appendleft(data[cut:])
        return data[:cut]

    def _half_closed(self) -> None:
        if not self.reading:
            self.peer.fin_sent = False
        elif not self.ended and not self.protocol.eof_received():
            self.close()

    def _break(self) -> None:
        """RST came."""
        self.queue.clear()
        self.ended = True
        self._lose(ConnectionResetError("reset"))

    def _leave_when_sent(self) -> None:
        if self.ended and not self.get_write_buffer_size():
            self._lose(None)

    def _lose(self, error: Exception | None) -> None:
        if not self.lost:
            self.lost = True
            self.ether.loop.call_soon(self.protocol.connection_lost, error)
