"""One upstream with all that decides whether a ticket may start there now.

    seats      taken + needed <= floor(limit); a request alone always fits
    holdback   taken + needed <= the seats of its class, unless its class is owed service or nothing runs
    prefill    outstanding + own uncached prompt <= Pmax, or nothing is outstanding; 0.5 Pmax for a class that is
               held back, 2.5 Pmax for the one it is held back for: its prompts find room at once
    elephant   a prompt above four chunks waits while another such prompt is in prefill and anything runs, and then
               as long again (see `elephants`)
    memory     the ledger's future peak with it <= usable KV tokens
    stopped    fresh telemetry says KV usage >= 0.95 while requests wait inside the engine

Outstanding prefill ends with the first token. A request that is not streamed shows none: it counts until the time by
which the engine, at its measured prefill rate R, is through with what was ahead, now + (outstanding + own) / R.
"""

from __future__ import annotations

from dataclasses import replace
from heapq import heappop, heappush
from math import inf
from typing import Final

from proxy.admission.batch_sizer import RESTORE_SHARE, AdaptiveBatchSizer, TickInput
from proxy.admission.ceiling import MemoryBound, resolve, seats_for
from proxy.admission.ledger import Ledger, Size
from proxy.admission.limits import Reason
from proxy.admission.step_model import CHUNK_TOKENS
from proxy.dispatcher.config import UpstreamConfig
from proxy.dispatcher.elephants import ELEPHANT_TOKENS, Elephants
from proxy.dispatcher.permits import Block, Permit, seats_of
from proxy.dispatcher.turns import Turns
from proxy.routing.breaker import BreakerConfig
from proxy.routing.upstream import Upstream
from proxy.types import GENERATE, Direction, Failure, Reading, Sample, Step, Telemetry, Ticket, Usage

KV_STOP: Final = 0.95
PREFILL_HELD: Final = 0.5  # of the prefill bound, for a class that is held back
PREFILL_ABOVE: Final = 2.5  # and for one above such a class
HELD_S: Final = 60.0
ABORT_GRACE_S: Final = 10.0


class Station:
    """One upstream: routing state, limit, ledger, and what runs there."""

    def __init__(self, config: UpstreamConfig, breaker: BreakerConfig, telemetry_max_age_s: float, now: float) -> None:
        self.config = config
        self.upstream = Upstream(config.name, config.models, config.weight, breaker)
        self.telemetry_max_age_s = telemetry_max_age_s
        self.telemetry: Telemetry | None = None
        self.bound = MemoryBound()
        self.ledger = Ledger(None)
        self.sizer = AdaptiveBatchSizer(config.name, config.limit, config.target, now, config.shared_by)
        self._refresh()
        self.held_seats: int | None = None  # pinned by the operator
        self.leaving = False  # no longer configured; lives until it is empty
        self.permits: dict[int, Permit] = {}
        self.aborting: dict[int, tuple[Permit, float]] = {}  # with the end of its grace
        self.prefill_out_tokens = 0.0
        self.elephants = Elephants()
        self.kept_seats = 0  # free seats that only holdback keeps free, while tickets wait
        self._sized: Ticket | None = None  # whose size is `_size`, after so many lessons of the ledger
        self._size, self._lessons = Size(0, 0, 0), 0
        self._prefill_due: list[tuple[float, int]] = []
        self._running = 0
        self._held_at_s = -inf  # last asked for a class that is held back
        self._running_integral = self._prefilled_tokens = 0.0
        self._running_at_s = self._ticked_s = now
        self._true_ups = Turns()
        self._rebound()

    @property
    def name(self) -> str:
        return self.config.name

    @property
    def load(self) -> float:
        """Share of capacity in use after one more request, for the balancing policies."""
        return (self.upstream.seats_taken + 1) / (self.config.weight * self.seats)

    @property
    def has_room(self) -> bool:
        return self.upstream.free_seats(self.seats) > 0

    @property
    def ceiling_seats(self) -> int | None:
        """Seats that memory holds at the measured sizes; None: unknown."""
        return self._ceiling_at(self.ledger.mean_output_tokens)

    def _ceiling_at(self, mean_output_tokens: float) -> int | None:
        if self.bound.tokens is None:
            return self.bound.seats
        ledger = self.ledger
        seats = seats_for(
            self.bound.tokens,
            self.sizer.kv_factor,
            ledger.mean_prompt_tokens,
            mean_output_tokens,
            ledger.output_variation,
        )
        return seats if self.bound.seats is None else min(seats, self.bound.seats)

    def too_large(self, ticket: Ticket) -> bool:
        """Even a lower bound of the prompt can never fit here."""
        return ticket.estimate.prompt_floor > self._prompt_max and ticket.work is GENERATE

    def fresh_telemetry(self, now: float) -> Telemetry | None:
        """What the engine told last, unless it is too old to mean anything."""
        if self.telemetry is None or now - self.telemetry.at_s > self.telemetry_max_age_s:
            return None
        return self.telemetry

    def size(self, ticket: Ticket) -> Size:
        """Expected tokens of a ticket; work that generates nothing has no output and no cached prompt."""
        if ticket is self._sized and self._lessons == self.ledger.lessons:
            return self._size  # one decision asks several times
        prompt_tokens, _, output_cap, _ = ticket.estimate
        if ticket.work is not GENERATE:
            self._size = Size(prompt_tokens, prompt_tokens, 0)
        else:
            self._size = self.ledger.size(ticket.tenant, prompt_tokens, output_cap)
        self._sized, self._lessons = ticket, self.ledger.lessons
        return self._size

    def cost(self, ticket: Ticket) -> float:
        """Expected engine time of a ticket, in the sizer's unit."""
        _, uncached, output = self.size(ticket)
        return self._prompt_cost * uncached + self._output_cost * output

    def cost_of(self, ticket: Ticket, usage: Usage | None) -> float:
        """What a ticket has cost in the end, as far as is known."""
        if ticket.work is not GENERATE:
            return self.cost(ticket)
        if usage is None:
            return self._prompt_cost * self.size(ticket).uncached + self._output_cost * ticket.generated_tokens
        prompt, output, cached = usage
        return self._prompt_cost * (prompt - cached if cached < prompt else 0) + self._output_cost * output

    def wait_s(self, ticket: Ticket) -> float:
        """Expected time from dispatch to first token; 0 while the prefill rate is unknown."""
        rate = self._prefill_rate
        return 0.0 if not rate else (self.prefill_out_tokens + self.size(ticket).uncached) / rate

    def block(self, ticket: Ticket, class_seats: int, owed: bool, now: float) -> Block | None:
        """The first reason why the ticket cannot start here now; None: it can."""
        upstream, needed = self.upstream, 1 if ticket.estimate.choices == 1 else seats_of(ticket)
        taken, free = upstream.seats_taken, upstream.free_seats(self.seats)
        if free == 0 or (needed > free and taken):
            return Block.SEATS
        if taken == 0:
            return None
        if not owed and taken + needed > class_seats:
            self.kept_seats = self.seats - class_seats
            return Block.HELD_BACK
        if self.telemetry is not None and self._stopped(now):
            return Block.STOPPED
        if ticket.work is not GENERATE:
            return None
        if class_seats < self.seats:
            self._held_at_s = now
            return self._block_of_size(ticket, 1.0 if owed else PREFILL_HELD, now)
        return self._block_of_size(ticket, PREFILL_ABOVE if now - self._held_at_s < HELD_S else 1.0, now)

    def elephants_wait(self, now: float) -> bool:
        """May a very long prompt not start now, whatever else is free?"""
        return self.upstream.seats_taken > 0 and self.elephants.block(self.ledger.mean_uncached_tokens, now)

    def grant(self, ticket: Ticket, cost: float, owed: bool, now: float) -> Permit:
        """Start the ticket here: every count goes up together."""
        estimate, ahead_tokens, uncached = ticket.estimate, self.prefill_out_tokens, self.size(ticket)[1]
        seats = 1 if estimate.choices == 1 else seats_of(ticket)
        generates = ticket.work is GENERATE
        visible = generates and ticket.streaming  # its first token tells when its prefill is over
        permit = Permit(ticket, seats, uncached, ahead_tokens, cost, owed, self.sizer, generates, not visible)
        self.permits[ticket.id] = permit
        self.upstream.take(ticket.id, seats)
        ticket.upstream, ticket.dispatched_s, ticket.first_token_s = self.config.name, now, None
        ticket.epoch, ticket.cost, ticket.generated_tokens = self.sizer.epoch, cost, 0
        ticket.reserved_tokens = 0.0
        if generates:
            ticket.reserved_tokens = float(
                self.ledger.reserve(ticket.id, ticket.tenant, estimate.prompt_tokens, estimate.output_cap)
            )
            outstanding = ahead_tokens + uncached
            self.prefill_out_tokens = float(outstanding)
            if uncached > ELEPHANT_TOKENS:
                self.elephants.began()
            if not visible:
                heappush(self._prefill_due, (now + outstanding / self._drain_rate, ticket.id))
        if not visible:
            self._integrate(now)
            self._running += seats
        return permit

    def first_token(self, permit: Permit, now: float) -> None:
        """The prefill is over."""
        self._prefilled(permit, now)
        if not permit.running:
            self._integrate(now)
            permit.running = True
            self._running += permit.seats

    def observe(self, permit: Permit, sample: Sample, now: float) -> Step | None:
        """A success has been measured."""
        if permit.sizer is not self.sizer:
            return None
        step = permit.sizer.observe(sample, now)
        return None if step is None else self._moved(step)

    def overloaded(self, failure: Failure, now: float) -> Step | None:
        """The engine refused, timed out or reset."""
        return self._moved(self.sizer.overloaded(now, failure))

    def hold(self, seats: int | None, now: float) -> Step | None:
        """Pin the limit; None lets go."""
        self.held_seats = seats
        return self._moved(self.sizer.hold(seats, now))

    def end(self, permit: Permit, usage: Usage | None, now: float, linger: bool) -> None:
        """The exchange is over: every count goes down together, or later if the engine lingers on it."""
        ticket, seats = permit.ticket, permit.seats
        del self.permits[ticket.id]
        if permit.prefilling:
            self._prefilled(permit, now, done=False)
        if linger:
            self.upstream.linger()
            self.aborting[ticket.id] = (permit, now + ABORT_GRACE_S)
            return
        self.upstream.give(seats)
        self._free(permit, usage, now)

    def aborted(self, ticket_id: int, now: float) -> Permit | None:
        """The engine has stopped a cancelled ticket; None where that was known already."""
        found = self.aborting.pop(ticket_id, None)
        if found is None:
            return None
        permit, _ = found
        self.upstream.aborted(permit.seats)
        self._free(permit, None, now)
        return permit

    def advance(self, now: float) -> list[int]:
        """Time passed: invisible prefills end; returns the cancelled tickets whose grace is over."""
        while self._prefill_due and self._prefill_due[0][0] <= now:
            permit = self.permits.get(heappop(self._prefill_due)[1])
            if permit is not None:
                self._prefilled(permit, now)
        return [ticket_id for ticket_id, (_, until_s) in self.aborting.items() if until_s <= now]

    def tick(self, now: float, reading: Reading, queue_share: float) -> list[Step]:
        """Judge the limit by what was measured since the last tick."""
        for ticket, generated in reading.progress:
            ticket.generated_tokens = generated
        for ticket, generated in self._true_ups.take(reading.progress):
            if ticket.id in self.permits and ticket.work is GENERATE:
                self.ledger.progress(ticket.id, generated)
        self.ledger.tick()
        telemetry = self.fresh_telemetry(now)
        if telemetry is not None and telemetry.kv_usage is not None:
            self.ledger.calibrate(telemetry.kv_usage, telemetry.waiting or 0, now)
        steps = self.sizer.tick(self.tick_input(now, reading, queue_share))
        self.ledger.factor = self.sizer.kv_factor
        self._refresh()
        self._prefilled_tokens = self._running_integral = 0.0
        self._ticked_s = self._running_at_s = now
        return steps

    def tick_input(self, now: float, reading: Reading, queue_share: float) -> TickInput:
        """What the sizer is told; changes no count."""
        self._integrate(now)
        telemetry = self.fresh_telemetry(now)
        duration_s = max(now - self._ticked_s, 1e-3)
        ledger = self.ledger
        running = telemetry.running if telemetry is not None else None
        if running == 0 and self.upstream.in_flight:
            running = None  # a gauge that has not been filled yet
        mean_output_tokens = ledger.mean_output_tokens  # once: it looks at all that run
        ceiling = self._ceiling_at(mean_output_tokens)
        return TickInput(
            now=now,
            duration_s=duration_s,
            gap_s=reading.gap_s,
            tokens=reading.tokens,
            running=self._running_integral / duration_s,
            prefill_tokens=self._prefilled_tokens,
            in_flight=self.upstream.seats_taken + (self.kept_seats if queue_share else 0),
            prefill_out_tokens=self.prefill_out_tokens,
            queue_share=queue_share,
            mean_prompt_tokens=ledger.mean_uncached_tokens,
            mean_output_tokens=mean_output_tokens,
            mix=ledger.mix,
            kv_limit_seats=None if ceiling is None else float(ceiling),
            engine=telemetry,
            engine_total_running=None if running is None else float(running),
        )

    def told(self, telemetry: Telemetry) -> bool:
        """Telemetry came. True when the models it serves have changed."""
        before = self.upstream.models
        self.telemetry = telemetry
        if self.config.models is None and telemetry.models:
            self.upstream.models = telemetry.models
        self._rebound()
        return self.upstream.models != before

    def reconfigure(self, config: UpstreamConfig, breaker: BreakerConfig, now: float) -> Step | None:
        """Apply a new configuration and let go of a pinned limit; what runs goes on."""
        step = None
        if self.held_seats is not None or (config.limit, config.target) != (self.config.limit, self.config.target):
            self.sizer.hold(None, now)
            step = self.sizer.reconfigure(config.limit, config.target, now)
        self.leaving, self.held_seats, self.config = False, None, config
        self.upstream.weight = config.weight
        self.upstream.breaker.config = breaker
        told = self.telemetry.models if self.telemetry is not None else ()
        self.upstream.models = config.models or told or None
        self._rebound()
        return step

    def restart(self, now: float) -> Step | None:
        """The upstream is back from a failure: begin at the initial limit, keep what the fit has learnt."""
        config, before = self.config, self.sizer
        self.sizer = AdaptiveBatchSizer(config.name, config.limit, config.target, now, config.shared_by)
        self.sizer.restore(replace(before.memory(), limit=config.limit.initial / RESTORE_SHARE), now)
        if self.held_seats is not None:
            self.sizer.hold(self.held_seats, now)
        self._rebound()
        after = self.sizer.limit
        if after == before.limit:
            return None
        direction = Direction.UP if after > before.limit else Direction.DOWN
        return Step(config.name, before.limit, after, direction, Reason.RESTORED, now)

    def _rebound(self) -> None:
        memory, telemetry = self.config.memory, self.telemetry
        live = None
        if telemetry is not None:
            unbounded = memory is not None and memory.source == "none"
            tokens = None if unbounded else telemetry.kv_tokens
            live = MemoryBound(tokens, telemetry.running_cap, telemetry.context_tokens, "engine")
        planned = memory if memory is not None and memory.source == "plan" else None
        self.bound = resolve(None if planned is memory else memory, live, planned)
        bounds = (self.bound.tokens, self.bound.context_tokens)
        self._prompt_max = min((bound for bound in bounds if bound is not None), default=inf)
        self.ledger.capacity_tokens = self.bound.tokens
        self.sizer.set_ceiling(self.bound.seats)
        self._refresh()

    def _refresh(self) -> None:
        """What every decision asks of the sizer, and what changes only with a tick or a step. A cost is linear."""
        sizer = self.sizer
        self.seats = sizer.seats
        self._prefill_max, self._prefill_rate = sizer.prefill_tokens_max, sizer.prefill_rate()
        self._drain_rate = self._prefill_rate or CHUNK_TOKENS / self.config.target.ttft_s
        self._prompt_cost, self._output_cost = sizer.service_cost(1, 0), sizer.service_cost(0, 1)

    def _moved(self, step: Step | None) -> Step | None:
        if step is not None:
            self._refresh()
        return step

    def _stopped(self, now: float) -> bool:
        telemetry = self.fresh_telemetry(now)
        return telemetry is not None and (telemetry.kv_usage or 0.0) >= KV_STOP and (telemetry.waiting or 0) > 0

    def _block_of_size(self, ticket: Ticket, prefill_share: float, now: float) -> Block | None:
        tokens, outstanding = self.size(ticket)[1], self.prefill_out_tokens
        if tokens > ELEPHANT_TOKENS and self.elephants_wait(now):
            return Block.ELEPHANT
        if outstanding and outstanding + tokens > prefill_share * self._prefill_max:
            return Block.PREFILL
        ledger = self.ledger
        if ledger.capacity_tokens is None:
            return None
        estimate = ticket.estimate
        return None if ledger.fits(ticket.tenant, estimate.prompt_tokens, estimate.output_cap) else Block.MEMORY

    def _prefilled(self, permit: Permit, now: float, done: bool = True) -> None:
        """Take the prompt out of the outstanding prefill, once."""
        if not permit.prefilling:
            return
        permit.prefilling, tokens = False, permit.prompt_tokens
        self.prefill_out_tokens -= tokens
        if tokens > ELEPHANT_TOKENS:
            self.elephants.ended(permit.ticket.dispatched_s, now)
        if done:
            self._prefilled_tokens += tokens

    def _free(self, permit: Permit, usage: Usage | None, now: float) -> None:
        if permit.running:
            if now > self._running_at_s:
                self._integrate(now)
            self._running -= permit.seats
        if permit.ticket.work is GENERATE:
            self.ledger.release(permit.ticket.id, usage)

    def _integrate(self, now: float) -> None:
        if now > self._running_at_s:
            self._running_integral += (now - self._running_at_s) * self._running
            self._running_at_s = now
