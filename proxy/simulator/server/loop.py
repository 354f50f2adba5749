"""The engine on the event loop: one timer per step, then the step's tokens to every live answer.

A step asked for at t yields its tokens at t + duration / speed, and the next one begins there, not when the timer
fired, so late timers do not add up. An engine that fell more than `LAG_MAX_S` behind goes on from the present instead.
The clock that the engine sees runs `speed` times as fast as the wall.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from proxy.simulator.engine import Engine, StepResult

LAG_MAX_S = 0.05


class Stream(Protocol):
    """Where the tokens of one sequence go."""

    def open(self) -> None:
        """The first token is about to come."""

    def token(self) -> None:
        """One token, not the last."""

    def finish(self) -> None:
        """The last token."""


@dataclass(frozen=True, slots=True)
class Piece:
    """One sequence of a request; `reason` is how it will end (stop, length)."""

    prompt_tokens: int
    output_tokens: int
    reason: str = "stop"
    stream: Stream | None = None


class Job:
    """The sequences of one request; `done` resolves when the last has ended."""

    __slots__ = ("_loop", "_open", "done")

    def __init__(self, loop: EngineLoop, pieces: dict[int, Piece]) -> None:
        self._loop = loop
        self._open = pieces
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def end(self, sequence_id: int) -> Piece:
        piece = self._open.pop(sequence_id)
        if not self._open and not self.done.done():
            self.done.set_result(None)
        return piece

    def abort(self) -> None:
        """Forget what has not ended. Idempotent."""
        for sequence_id in list(self._open):
            del self._open[sequence_id]
            self._loop.abort(sequence_id)


class EngineLoop:
    """Owns the engine. `abort_delay_s` (wall) lets aborted work run on, as some engines do."""

    def __init__(self, engine: Engine, speed: float) -> None:
        if speed <= 0:
            raise ValueError(f"speed must be positive, not {speed}")
        self.engine = engine
        self.speed = speed
        self.ended: Counter[str] = Counter()
        self.abort_delay_s = 0.0
        self._stalled = False
        self._ids = 0
        self._jobs: dict[int, Job] = {}
        self._streams: dict[int, Stream] = {}
        self._timer: asyncio.Handle | None = None
        self._due_s = 0.0

    def stall(self, stalled: bool) -> None:
        """Make no step while true; the tokens of the step under way still come."""
        self._stalled = stalled
        self._wake()

    def submit(self, pieces: Iterable[Piece], priority: int = 0) -> Job:
        """Hand the pieces of one request to the engine. They must fit it (`EngineProfile.request_tokens_max`)."""
        now = asyncio.get_running_loop().time() * self.speed
        numbered: dict[int, Piece] = {}
        job = Job(self, numbered)
        for piece in pieces:
            self._ids += 1
            self.engine.submit(self._ids, piece.prompt_tokens, piece.output_tokens, now, priority)
            numbered[self._ids] = piece
            self._jobs[self._ids] = job
            if piece.stream is not None:
                self._streams[self._ids] = piece.stream
        self._wake()
        return job

    def abort(self, sequence_id: int) -> None:
        self._jobs.pop(sequence_id, None)
        self._streams.pop(sequence_id, None)
        if self.abort_delay_s:
            asyncio.get_running_loop().call_later(self.abort_delay_s, self.engine.abort, sequence_id)
        else:
            self.engine.abort(sequence_id)

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None

    def _wake(self) -> None:
        """Begin a step in the next turn, so that requests of one turn share it."""
        if self._timer is None and self.engine.busy and not self._stalled:
            loop = asyncio.get_running_loop()
            self._due_s = loop.time()
            self._timer = loop.call_soon(self._begin)

    def _begin(self) -> None:
        result = self.engine.step(self._due_s * self.speed)
        self._due_s += result.duration_s / self.speed
        self._timer = asyncio.get_running_loop().call_at(self._due_s, self._deliver, result)

    def _deliver(self, result: StepResult) -> None:
        self._timer = None
        streams = self._streams
        for sequence_id in result.firsts:
            if (stream := streams.get(sequence_id)) is not None:
                stream.open()
        for sequence_id in self.engine.decoding:
            if (stream := streams.get(sequence_id)) is not None:
                stream.token()
        for sequence_id in result.finished:
            self._finish(sequence_id)
        now_s = asyncio.get_running_loop().time()
        if not self.engine.busy or self._stalled:
            return
        if now_s - self._due_s > LAG_MAX_S:
            self._due_s = now_s
        self._begin()

    def _finish(self, sequence_id: int) -> None:
        job = self._jobs.pop(sequence_id, None)
        if job is None:  # aborted while its last step ran
            return
        stream = self._streams.pop(sequence_id, None)
        if stream is not None:
            stream.finish()
        self.ended[job.end(sequence_id).reason] += 1
