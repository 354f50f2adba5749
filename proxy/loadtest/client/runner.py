"""Sends a workload and collects what comes of it: open loop by the clock, closed loop by the endings.

Open loop: every request has its due time, and its latency counts from there even when `in_flight_max` or the machine
kept it back. Closed loop: as many requests as asked for are always under way; after a failure the next one waits a
little, so that a dead endpoint is not hammered.
"""

from __future__ import annotations

import asyncio
import random
import secrets
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from proxy.adapters.tasks import Tasks
from proxy.adapters.upstream_pool import UpstreamPool
from proxy.loadtest.client.call import Call
from proxy.loadtest.client.clock import Lag, TurnClock
from proxy.loadtest.client.endpoint import Endpoint
from proxy.loadtest.prompts import PATHS, Prompts
from proxy.loadtest.records import Ending, Record
from proxy.loadtest.stats import Sketch, Tally, percentile
from proxy.loadtest.workload import Shot, Workload, shots
from proxy.wire.routes import ROUTES

CONNECT_TIMEOUT_S = 10.0
CHECK_INTERVAL_S = 0.1
AFTER_FAILURE_S = 0.05
HOPELESS_REQUESTS = 100  # so many requests without one connection: nobody listens there
RECENT = 100
BURST = 32


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a run is, for a progress bar."""

    elapsed_s: float
    end_s: float
    started: int
    ended: int
    failed: int
    in_flight: int
    ttft_p50_s: float | None


class Runner:
    """One run. `run` answers when the last request has ended, or soon after `stop`."""

    def __init__(
        self, endpoint: Endpoint, workload: Workload, model: str, left_out: frozenset[str] = frozenset()
    ) -> None:
        self.endpoint, self.workload, self.model, self.left_out = endpoint, workload, model, left_out
        self.heads = {flow.name: endpoint.head(flow) for flow in workload.flows}
        self.tally = Tally(workload.warmup_s, workload.end_s)
        self.lag = Lag()
        self.send_delay = Sketch()
        self.live: set[Call] = set()
        self.started = self.counted = self.ended = self.failed = 0
        self.interrupted = self.hopeless = False
        self.recent: deque[float] = deque(maxlen=RECENT)
        self._held: deque[Shot] = deque()
        self._unread: deque[Call] = deque()  # ended, and not yet in the tally
        self._due: Shot | None = None
        self._exhausted = self._connected = False
        self._done = asyncio.Event()
        self._tasks = Tasks(self._failed)
        self._failure: BaseException | None = None
        loop = asyncio.get_running_loop()
        self.loop = loop
        self.clock = TurnClock(loop.call_soon)
        self.pool = UpstreamPool(endpoint.host, endpoint.port, endpoint.tls, CONNECT_TIMEOUT_S, self._tasks, loop.time)
        # New words in every run, whatever the seed: a prefix cache would know those of the run before.
        self._prompts = Prompts(random.Random(secrets.randbits(64)))  # noqa: S311  # a load, not a secret
        self._shots: Iterator[Shot] = shots(workload, random.Random(workload.seed))  # noqa: S311  # as above

    def _failed(self, name: str, error: BaseException) -> None:
        self._failure = error
        self.stop()

    async def run(self) -> Tally:
        self.clock.started_s += self.clock.now()  # time zero is now, not when this object was made
        self._tasks.start("load test lag", self.lag.run())
        self._tasks.start("load test deadlines", self._watch())
        try:
            if self.workload.closed:
                self.loop.call_later(self.workload.end_s, self._time_over)
                for _ in range(self.workload.arrival.concurrency):
                    self._next()
            else:
                self._fire()
            await self._done.wait()
        finally:
            self.cut()
            for connection in list(self.pool.open):
                connection.close()
            self.pool.close()
            await self._tasks.close()
            while self._unread:
                self._digest()
        if self._failure is not None:
            raise self._failure
        return self.tally

    def stop(self) -> None:
        """End now and keep what was measured: requests under way are cut and not counted as failures."""
        self.interrupted = True
        self.cut()

    def cut(self) -> None:
        self._finish_starting()
        self._held.clear()
        for call in list(self.live):
            call.drop(Ending.INTERRUPTED)
        self._done.set()

    def progress(self) -> Progress:
        times = sorted(self.recent)
        return Progress(
            self.clock.now(),
            self.workload.end_s,
            self.started,
            self.ended,
            self.failed,
            len(self.live),
            percentile(times, 50) if times else None,
        )

    # ---- starting ----
    def _fire(self) -> None:
        """Begins what is due and comes back for the next. Late, it yields now and then so that answers are read."""
        for _ in range(BURST):
            shot, self._due = self._due or next(self._shots, None), None
            if self._exhausted:
                return
            if shot is None:
                self._time_over()
                return
            assert shot.at_s is not None
            wait_s = shot.at_s - self.clock.now()
            if wait_s > 0:
                self._due = shot
                self.loop.call_later(wait_s, self._guarded, self._fire)
                return
            if self.workload.in_flight_max and len(self.live) >= self.workload.in_flight_max:
                self._held.append(shot)
            else:
                self._begin(shot)
        self.loop.call_soon(self._guarded, self._fire)

    def _guarded(self, step: Callable[[], None]) -> None:
        """An error in a callback ends the run and is told, instead of leaving it to wait for ever."""
        try:
            step()
        except Exception as error:
            self._failed("load test", error)

    def _time_over(self) -> None:
        self._finish_starting()
        self._end_if_idle()

    def _next(self) -> None:
        """The next request of a closed loop."""
        if not self._exhausted:
            self._begin(next(self._shots))

    def _begin(self, shot: Shot) -> None:
        now = self.clock.now()
        due_s = now if shot.at_s is None else shot.at_s
        record = Record(
            index=shot.index,
            flow=shot.flow.name,
            due_s=due_s,
            sent_s=now,
            prompt_asked=shot.prompt_tokens,
            output_asked=shot.output_tokens,
            streaming=shot.flow.stream,
            warmup=due_s < self.workload.warmup_s,
        )
        self.started += 1
        self.counted += not record.warmup
        if not self.workload.in_flight_max:
            self.send_delay.add(now - due_s)
        head = self.heads.get(shot.flow.name)
        if head is None:
            head = self.heads[shot.flow.name] = self.endpoint.head(shot.flow)
        body = self._prompts.body(shot, self.model, self.left_out)
        call = Call(
            record,
            [head, b"%d\r\n\r\n" % len(body), body],
            ROUTES[PATHS[shot.flow.api].encode()],
            self.pool,
            self.clock,
            self._ended,
            self.workload.timeout_s,
            self.workload.silence_s,
        )
        self.live.add(call)
        if self.workload.requests and self.counted >= self.workload.requests:
            self._finish_starting()
            self._held.clear()
        call.start()

    def _finish_starting(self) -> None:
        if not self._exhausted:
            self._exhausted = True
            self.tally.until_s = min(self.tally.until_s, self.clock.now())

    # ---- ending ----
    def _ended(self, call: Call) -> None:
        self.live.discard(call)
        record = call.record
        if record.ending is not Ending.INTERRUPTED:
            self.ended += 1
            self.failed += not record.ok
        if record.ok and record.ttft_s is not None:
            self.recent.append(record.ttft_s)
        if not self._unread:
            self.loop.call_soon(self._guarded, self._digest)
        self._unread.append(call)
        self._connected = self._connected or record.ending is not Ending.CONNECT
        if not self._connected and self.ended >= HOPELESS_REQUESTS and not self.hopeless:
            self.hopeless = True
            self.cut()
        if self._held:
            self._begin(self._held.popleft())
        elif self.workload.closed and not self._exhausted:
            wait_s = max(self.workload.arrival.think_s, 0.0 if record.ok else AFTER_FAILURE_S)
            if wait_s:
                self.loop.call_later(wait_s, self._guarded, self._next)
            else:
                self._next()
        self._end_if_idle()

    def _digest(self) -> None:
        """Counts one ended request a turn: a thousand that end together must not delay the reading of others."""
        if self._unread:
            call = self._unread[0]
            self.tally.add(call.record, call.stamps)
            self._unread.popleft()
            if self._unread:
                self.loop.call_soon(self._guarded, self._digest)

    def _end_if_idle(self) -> None:
        if self._exhausted and not self.live and not self._held:
            self._done.set()

    async def _watch(self) -> None:
        """Deadlines of all requests, and idle connections, without a timer for each."""
        while True:
            await asyncio.sleep(CHECK_INTERVAL_S)
            now = self.clock.now()
            for call in list(self.live):
                call.check(now)
            self.pool.sweep(self.loop.time())
