"""A simulated engine with the meters that the shell keeps at each upstream.

All decoding sequences get their token at the end of a step, so the gaps of a step sum to (sequences) x (duration). A
sequence that comes back from eviction has a gap as long as its absence. Events are what arrives on the wire: with
speculative decoding each carries several tokens, and the shell learns from `usage` how many (`Meter.calibrate`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import ceil

from proxy.laboratory.workload import Arrival
from proxy.simulator.engine import Engine, StepResult
from proxy.types import Outcome, Reading, Telemetry, Ticket, Work

CALIBRATION_GAIN = 0.05
EVENTS_MIN = 8
BUFFER_TOKENS = 330  # 64 KiB of server-sent events towards a client that reads slowly


@dataclass(slots=True, eq=False)
class Request:
    """One arrival and what became of it; times are absolute."""

    arrival: Arrival
    ticket: Ticket
    outcome: Outcome | None = None
    first_s: float | None = None  # first token, also of what is not streamed
    ended_s: float = 0.0
    last_s: float = 0.0  # last token
    stalled: bool = False  # its client's buffer is full, so nothing is read

    @property
    def wait_s(self) -> float:
        """In our queue."""
        return self.ticket.dispatched_s - self.arrival.at_s

    @property
    def engine_ttft_s(self) -> float:
        """From dispatch to the first token; 0 where there is none."""
        return 0.0 if self.first_s is None else self.first_s - self.ticket.dispatched_s

    @property
    def itl_s(self) -> float:
        """Mean time per output token after the first; 0 for one token."""
        if self.first_s is None:
            return 0.0
        return (self.last_s - self.first_s) / max(1, self.arrival.output_tokens - 1)

    @property
    def engine_tokens(self) -> int:
        """Steps that its output takes."""
        return ceil(self.arrival.output_tokens / self.arrival.tokens_per_step)


@dataclass(slots=True)
class Meter:
    """What one proxy measures at one upstream."""

    live: int = 0  # streams past their first token that are read
    gap_s: float = 0.0
    events: int = 0
    tokens_per_event: float = 1.0

    def calibrate(self, tokens: int, events: int) -> None:
        """One finished stream whose usage is known."""
        if events >= EVENTS_MIN:
            self.tokens_per_event += CALIBRATION_GAIN * (tokens / events - self.tokens_per_event)


@dataclass(slots=True, eq=False)
class Bench:
    """One engine, measured by each proxy in front of it."""

    name: str
    engine: Engine
    meters: list[Meter]
    stepping: bool = False
    live: dict[int, Request] = field(default_factory=dict)  # what the engine has not finished
    paused: dict[int, float] = field(default_factory=dict)  # evicted while decoding: time of the last token
    slow: dict[int, Request] = field(default_factory=dict)  # those whose clients read slowly
    decoded: int = 0  # output tokens, all proxies together

    def submit(self, request: Request, now: float) -> None:
        """Hand a dispatched request to the engine."""
        arrival = request.arrival
        self.live[request.ticket.id] = request
        if arrival.read_tokens_s is not None:
            self.slow[request.ticket.id] = request
        prompt = max(1, arrival.prompt_tokens - arrival.cached_tokens)
        self.engine.submit(request.ticket.id, prompt, request.engine_tokens, now)

    def step(self, now: float) -> StepResult:
        """Begin a step."""
        result = self.engine.step(now)
        self.stepping = True
        for evicted in result.preempted:
            request = self.live[evicted]
            if request.first_s is not None and evicted not in self.paused:
                self.paused[evicted] = now
                self._leave(request)
        return result

    def stepped(self, result: StepResult, now: float) -> tuple[list[Request], list[Request]]:
        """End a step: count gaps and events of all that decoded in it. Who got the first and who the last token,
        without those whose clients left during the step."""
        self.stepping = False
        self.decoded += result.tokens
        for meter in self.meters:
            meter.gap_s += meter.live * result.duration_s
            meter.events += meter.live
        if self.paused:
            self._resume(result, now)
        firsts = [self.live[ticket_id] for ticket_id in result.firsts if ticket_id in self.live]
        for request in firsts:
            request.first_s = now
            self._join(request)
        finished = [self.live.pop(ticket_id) for ticket_id in result.finished if ticket_id in self.live]
        for request in finished:
            request.last_s = now
            self.slow.pop(request.ticket.id, None)
            self._leave(request)
        return firsts, finished

    def abort(self, request: Request) -> None:
        """The client has left."""
        if self.live.pop(request.ticket.id, None) is None:
            return
        self.slow.pop(request.ticket.id, None)
        self.engine.abort(request.ticket.id)
        if self.paused.pop(request.ticket.id, None) is None and request.first_s is not None:
            self._leave(request)

    def reading(self, proxy: int, now: float) -> Reading:
        """Sums since the last call; progress of what decodes."""
        meter, engine = self.meters[proxy], self.engine
        for request in self.slow.values():
            self._stall(request, now)
        progress = []
        for ticket_id in engine.decoding:
            request = self.live[ticket_id]
            if request.arrival.proxy == proxy and request.arrival.streaming and request.first_s is not None:
                progress.append((request.ticket, round(engine.generated(ticket_id) * meter.tokens_per_event)))
        gap_s, events = meter.gap_s, meter.events
        meter.gap_s, meter.events = 0.0, 0
        return Reading(gap_s, events * meter.tokens_per_event, tuple(progress))

    def telemetry(self, now: float) -> Telemetry:
        """What its metrics page tells."""
        engine, profile = self.engine, self.engine.profile
        return Telemetry(
            at_s=now,
            running=engine.running,
            waiting=engine.waiting,
            kv_usage=engine.kv_usage,
            preemptions=engine.counters.preemptions,
            kv_tokens=profile.kv_tokens,
            context_tokens=profile.request_tokens_max,
            engine="vllm",
        )

    def _join(self, request: Request) -> None:
        if request.arrival.streaming and request.arrival.work is Work.GENERATE:
            self.meters[request.arrival.proxy].live += 1

    def _leave(self, request: Request) -> None:
        if request.first_s is None or request.stalled:
            return
        if request.arrival.streaming and request.arrival.work is Work.GENERATE:
            self.meters[request.arrival.proxy].live -= 1

    def _stall(self, request: Request, now: float) -> None:
        """A client that reads slowly fills its buffer; from then on nothing is read for it, and nothing measured."""
        arrival, ticket_id = request.arrival, request.ticket.id
        if request.stalled or request.first_s is None or ticket_id not in self.engine.decoding:
            return
        read = (arrival.read_tokens_s or 0.0) * (now - request.first_s)
        if self.engine.generated(ticket_id) * arrival.tokens_per_step - read > BUFFER_TOKENS:
            self._leave(request)
            request.stalled = True

    def _resume(self, result: StepResult, now: float) -> None:
        decoding = self.engine.decoding
        for ticket_id in [one for one in self.paused if one in decoding or one in result.finished]:
            request = self.live[ticket_id]
            paused_s = self.paused.pop(ticket_id)
            self._join(request)
            if request.arrival.streaming:
                meter = self.meters[request.arrival.proxy]
                meter.gap_s += now - paused_s
                meter.events += 1
