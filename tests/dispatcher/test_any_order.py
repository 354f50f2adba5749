"""Any order of events: seats, tokens and tickets are conserved, and nothing is left at the end."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from proxy.admission.ceiling import MemoryBound
from proxy.admission.limits import LimitConfig
from proxy.routing.breaker import BreakerConfig
from proxy.types import Failure, Outcome, Reading, Telemetry, Ticket, Usage, Work

from .world import CLASSES, TenantConfig, World, config, upstream

BREAKER = BreakerConfig(window_s=10, min_requests=2, failure_ratio=0.5, open_s=5)
OUTCOMES = [Outcome.SUCCESS, Outcome.UPSTREAM_STATUS, Outcome.UPSTREAM_ERROR, Outcome.CLIENT_STALLED]
SETTINGS = {
    "plain": config(upstream("u0", 3), upstream("u1", 2)),
    "adaptive": config(
        upstream("u0", limit=LimitConfig(initial=3, minimum=2, maximum=6), memory=MemoryBound(2500, source="config")),
        upstream("u1", limit=LimitConfig(law="aimd", initial=2, maximum=4)),
        upstream("u2", limit=LimitConfig(law="seed", initial=1, minimum=1, maximum=3)),
        breaker=BREAKER,
    ),
    "tight": config(
        upstream("u0", 3, memory=MemoryBound(tokens=1500, source="config"), slow_abort=True, models=("m",)),
        upstream("u1", 2, memory=MemoryBound(tokens=900, source="plan")),
        tenants=(
            TenantConfig("a", 3.0, max_in_flight=2, max_queued=3),
            TenantConfig("b", tokens_per_minute=2000, requests_per_minute=30),
        ),
        classes=tuple(
            replace(one, queue_max=3, holdback=1 - rank / 10, queue_timeout_s=5.0) for rank, one in enumerate(CLASSES)
        ),
        breaker=BREAKER,
        policy="power_of_two",
    ),
}


class Machine(RuleBasedStateMachine):
    """Any order of events: the books of `World` and the dispatcher's own assertions hold after each."""

    kind = "tight"

    def __init__(self) -> None:
        super().__init__()
        self.world = World(SETTINGS[self.kind])
        self.aborting: list[Ticket] = []

    @rule(
        tenant=st.sampled_from("abc"), rank=st.integers(0, 3), prompt=st.sampled_from([10, 400, 9000]), data=st.data()
    )
    def arrive(self, tenant: str, rank: int, prompt: int, data: st.DataObject) -> None:
        self.world.arrive(
            tenant,
            rank,
            prompt=prompt,
            cap=data.draw(st.sampled_from([None, 5, 500])),
            work=data.draw(st.sampled_from([Work.GENERATE, Work.GENERATE, Work.EMBED])),
            streaming=data.draw(st.booleans()),
            deadline_s=data.draw(st.sampled_from([None, 2.0])),
            choices=data.draw(st.sampled_from([1, 1, 2])),
            model=data.draw(st.sampled_from("mmn")),
        )

    def pick(self, data: st.DataObject) -> Ticket:
        return data.draw(st.sampled_from(sorted(self.world.running.values(), key=lambda one: one.id)))

    @precondition(lambda self: self.world.running)
    @rule(data=st.data())
    def first_token(self, data: st.DataObject) -> None:
        self.world.first_token(self.pick(data))

    @precondition(lambda self: self.world.running)
    @rule(data=st.data(), outcome=st.sampled_from(OUTCOMES), status=st.sampled_from([200, 404, 429, 500, 503]))
    def finish(self, data: st.DataObject, outcome: Outcome, status: int) -> None:
        usage = data.draw(st.sampled_from([None, Usage(50, 20), Usage(10**6, 10**6)]))
        self.world.finish(self.pick(data), outcome, usage, status)

    @precondition(lambda self: self.world.running)
    @rule(data=st.data(), failure=st.sampled_from(Failure))
    def fail(self, data: st.DataObject, failure: Failure) -> None:
        self.world.fail(self.pick(data), failure)

    @precondition(lambda self: self.world.running or self.world.waiting)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        live = {**self.world.running, **self.world.waiting}
        ticket = live[data.draw(st.sampled_from(sorted(live)))]
        self.world.cancel(ticket)
        self.aborting.append(ticket)

    @precondition(lambda self: self.aborting)
    @rule()
    def aborted(self) -> None:
        self.world.apply(self.world.dispatcher.aborted(self.aborting.pop(), self.world.now))

    @rule(seconds=st.sampled_from([0.0, 0.05, 1.0, 6.0, 4000.0, -0.5]))
    def expire(self, seconds: float) -> None:
        self.world.pass_time(seconds)

    @rule(seconds=st.sampled_from([0.0, 0.5, 1.0]), generated=st.integers(0, 2000))
    def tick(self, seconds: float, generated: int) -> None:
        self.world.now += seconds
        progress = tuple((ticket, generated) for ticket in self.world.running.values())
        readings = {name: Reading(2.0, 50.0, progress) for name in ("u0", "u1", "u2", "gone")}
        self.world.apply(self.world.dispatcher.tick(self.world.now, readings))

    @rule(name=st.sampled_from(["u0", "u1"]), healthy=st.sampled_from([True, True, False]))
    def health(self, name: str, healthy: bool) -> None:
        self.world.apply(self.world.dispatcher.health(name, healthy, self.world.now))

    @rule(usage=st.sampled_from([0.2, 0.99]), models=st.sampled_from([("m",), ("m", "n"), ()]))
    def telemetry(self, usage: float, models: tuple[str, ...]) -> None:
        told = Telemetry(self.world.now, 3, 1, usage, 0, 800, 6, 5000, models)
        self.world.apply(self.world.dispatcher.telemetry("u1", told, self.world.now))

    @rule(draining=st.booleans(), seats=st.sampled_from([None, 1, 5]))
    def operate(self, draining: bool, seats: int | None) -> None:
        self.world.apply(self.world.dispatcher.drain_upstream("u1", draining, self.world.now))
        self.world.apply(self.world.dispatcher.hold_limit("u0", seats, self.world.now))

    @rule(classes=st.integers(1, 4), both=st.booleans())
    def reconfigure(self, classes: int, both: bool) -> None:
        wanted = SETTINGS[self.kind]
        kept = wanted.upstreams if both else wanted.upstreams[:1]
        changed = replace(wanted, classes=wanted.classes[-classes:], upstreams=kept)
        self.world.apply(self.world.dispatcher.reconfigure(changed, self.world.now))
        self.world.apply(self.world.dispatcher.reconfigure(wanted, self.world.now))

    @invariant()
    def books_agree(self) -> None:
        state = self.world.dispatcher.snapshot(self.world.now)
        assert state.held == len(self.world.running) + sum(one.aborting for one in state.upstreams)
        assert sum(one.queued for one in state.classes) == len(self.world.waiting)
        assert all(one.kv_reserved_tokens >= 0 for one in state.upstreams)
        assert not self.world.ended.keys() & (self.world.running.keys() | self.world.waiting.keys())

    @invariant()
    def limits_are_within_their_bounds(self) -> None:
        """An operator's hold is bound by the ceilings alone."""
        for one in self.world.dispatcher.snapshot(self.world.now).upstreams:
            limit = next((up.limit for up in SETTINGS[self.kind].upstreams if up.name == one.name), None)
            assert limit is not None and one.limit >= limit.minimum
            assert limit.maximum is None or one.limit <= limit.maximum

    def teardown(self) -> None:
        self.world.empty()


class PlainMachine(Machine):
    """No memory, no holdback, no quotas: then work never waits beside a free seat."""

    kind = "plain"

    @rule()
    def telemetry(self) -> None:
        """Left out: it would bring memory into play."""

    @invariant()
    def no_work_waits_beside_a_free_seat(self) -> None:
        state = self.world.dispatcher.snapshot(self.world.now)
        for one in state.upstreams:
            usable = one.healthy and not one.draining and one.breaker == "closed"
            seats = int(one.limit)
            taken = sum(max(1, t.estimate.choices) for t in self.world.running.values() if t.upstream == one.name)
            if usable and taken < seats and one.prefill_out_tokens == 0:
                fits = [
                    t for t in self.world.waiting.values() if one.name not in t.tried and not t.estimate.choices > 1
                ]
                heads = [t for t in self.world.waiting.values() if t.estimate.choices > 1]
                assert not fits or heads, f"{fits} beside {one}"


class AdaptiveMachine(Machine):
    """Laws that move their limits on whatever the events make them measure."""

    kind = "adaptive"


limits = settings(max_examples=60, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck))
TestTight = Machine.TestCase
TestTight.settings = limits
TestAdaptive = AdaptiveMachine.TestCase
TestAdaptive.settings = limits
TestPlain = PlainMachine.TestCase
TestPlain.settings = limits
