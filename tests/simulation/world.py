"""One seed, one world: the real gate, exchanges, pools, listener and connections between simulated clients and engines.

After every turn of the loop the accounts are compared with what the wire shows:

    I1   what the dispatcher counts as running is what the gate runs, and no more upstream exchanges are open than that
    I2   the account of queued bytes is the sum over live requests
    I3   what a tick tells the ledger is what has been generated (true-up)
    I4   granted - released = held, seats and tokens conserved (the dispatcher's own checks)
    I5   no ticket waits beside a free seat; at the end the whole limit is usable, and not more
    I10  one record per request, one answer per client that stays
    I11  no request runs twice, but after a shed or a dead reused connection (engine.py)
    I12  no byte of one exchange in another (client.py)
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from itertools import count
from random import Random
from typing import Any, cast

from proxy.adapters.gate import Gate, Lane, drive
from proxy.adapters.metrics import Metrics, MetricsConfig
from proxy.adapters.records import RequestRecord
from proxy.adapters.relay import Caps, Relay
from proxy.adapters.tasks import Tasks
from proxy.adapters.upstream_pool import UpstreamConnection, UpstreamPool
from proxy.admission.ceiling import MemoryBound
from proxy.admission.limits import LimitConfig
from proxy.admission.queue import ClassConfig
from proxy.dispatcher import Dispatcher, DispatcherConfig, UpstreamConfig
from proxy.routing.breaker import BreakerConfig
from proxy.routing.retry import RetryConfig
from proxy.server.catalog import Catalog
from proxy.server.connection import ClientConnection
from proxy.server.intake import Intake, IntakeConfig
from proxy.server.public import ListenConfig, Listener
from proxy.server.tenancy import Tenancy, TenancyConfig
from proxy.types import Work
from proxy.wire.answer import AnswerWriter
from proxy.wire.headers import HeadReader, upstream_lines
from proxy.wire.priority import ClassRule, TenantRule
from tests.simulation.client import Client, Habits, Report
from tests.simulation.engine import Books, Engine, EngineConnection
from tests.simulation.loop import START_S, DeadlockError, VirtualLoop
from tests.simulation.network import End, Ether

LONGEST_S = 60.0  # of virtual time, for all clients to be done
QUIET_S = 12.0  # more than the grace of an engine that aborts late
CLASSES = ("high", "normal", "low")
ANYBODY = TenantRule("anybody", "normal", "high")
CAPS = Caps(ttft_s=0.6, itl_s=0.4, response_s=0.8)


@dataclass(frozen=True)
class Swarm:
    """How bad this world is, drawn per seed: a fault that is rare everywhere hides among frequent ones."""

    upstreams: int
    seats: int
    clients: int
    habits: Habits
    weights: dict[str, float]
    refuse: float
    swallow: float
    operator: float
    memory: bool
    slow_abort: bool
    keepalive_s: float
    queue_max: int
    queue_timeout_s: float


def draw(rng: Random) -> Swarm:
    def rare(most: float) -> float:
        return rng.choice((0.0, most / 4, most))

    habits = Habits(
        leave=rng.choice((0.1, 0.3, 0.6)), stall=rare(0.2), partial=rare(0.1), split=rng.random() * 0.5,
        pipeline=rare(0.3), stream=rng.choice((0.0, 0.5, 0.9)), again=rng.choice((0.3, 0.8)),
        again_after_s=rng.choice((0.01, 0.1)),
    )  # fmt: skip
    ways = ("shed", "fail", "close", "reset", "silent", "break", "serve and close")
    weights = {"serve": 1.0} | {way: rare(0.3) for way in ways}
    return Swarm(
        upstreams=rng.choice((1, 1, 2, 3)), seats=rng.choice((1, 2, 2, 4)), clients=rng.choice((4, 8, 12)),
        habits=habits, weights=weights, refuse=rare(0.3), swallow=rare(0.1), operator=rare(0.5),
        memory=rng.random() < 0.3, slow_abort=rng.random() < 0.2, keepalive_s=rng.choice((0.0, 0.0, 0.1)),
        queue_max=rng.choice((2, 8)), queue_timeout_s=rng.choice((0.2, 1.0)),
    )  # fmt: skip


class SeedError(AssertionError):
    """What went wrong, and how to see it again."""


def play(seed: int) -> World:
    """The world of this seed after its end."""
    world = World(seed)
    try:
        return world.run()
    except Exception as error:
        cause = error.__context__ or error  # what a parser's callback raised
        message = f"{type(cause).__name__}: {cause}\nagain: python -m tests.simulation --first {seed} --seeds 1"
        raise SeedError(f"seed {seed}, {world.loop.time() - START_S:.2f} s: {message}") from error


class World:
    """`run()` plays the seed to its end; whatever does not hold raises."""

    def __init__(self, seed: int) -> None:
        self.rng = rng = Random(seed)
        self.swarm = swarm = draw(rng)
        self.loop = VirtualLoop()
        self.loop.connect = self._connect
        self.ether = Ether(self.loop, rng)
        self.errors: list[BaseException] = self.loop.errors
        self.books, self.report = Books(), Report()
        self.records: list[RequestRecord] = []
        self.config = self._config(swarm)
        self.dispatcher = Dispatcher(self.config, self.loop.time(), Random(seed), checks=True)
        self.board = self.dispatcher._board
        self.tasks = Tasks(lambda _, error: self.errors.append(error), clock=self.loop.time)
        self.gate = Gate(self.dispatcher, Metrics(MetricsConfig(CLASSES)), self.loop.time)
        self.engines: dict[str, Engine] = {}
        self.ends: dict[str, list[tuple[End, UpstreamConnection]]] = {}
        for name in (one.name for one in self.config.upstreams):
            self.engines[name] = Engine(name, self.ether, self.books, rng, swarm.weights)
            pool = UpstreamPool(name, 80, None, 0.2, self.tasks, self.loop.time)
            self.gate.lanes[name] = Lane(name, pool, upstream_lines(name.encode(), None))
            self.ends[name] = []
        relay = Relay(self.gate, AnswerWriter(), lambda _: CAPS, self.records.append, swarm.keepalive_s)
        self.listener = self._listen(relay)
        self.alive = swarm.clients

    def _config(self, swarm: Swarm) -> DispatcherConfig:
        memory = MemoryBound(tokens=900, source="config") if swarm.memory else None
        limit = LimitConfig(mode="fixed", initial=swarm.seats)
        names = [f"u{number}" for number in range(swarm.upstreams)]
        return DispatcherConfig(
            classes=tuple(ClassConfig(name, 0.0, 1.0, swarm.queue_max, swarm.queue_timeout_s) for name in CLASSES),
            upstreams=tuple(
                UpstreamConfig(name, ("m",), limit=limit, memory=memory, slow_abort=swarm.slow_abort) for name in names
            ),
            breaker=BreakerConfig(window_s=2, min_requests=4, failure_ratio=0.7, open_s=0.3),
            retry=RetryConfig(retries=2, budget=1.0),
        )

    def _listen(self, relay: Relay) -> Listener:
        rules = (
            ClassRule("high", -1, frozenset()),
            ClassRule("normal", 0, frozenset()),
            ClassRule("low", None, frozenset()),
        )
        intake = Intake(
            IntakeConfig(rules, max_body_bytes=1 << 16, body_timeout_s=0.3),
            Tenancy(TenancyConfig({}, {}, ANYBODY, ANYBODY)), HeadReader(), Catalog(self.dispatcher, self.loop.time),
            self.dispatcher, self.loop.time, lambda: "made", count(1),
        )  # fmt: skip
        config = ListenConfig(head_timeout_s=0.3, write_timeout_s=0.5)
        return Listener(
            config, intake, relay, relay, self.dispatcher, self.records.append,
            lambda _, error: self.errors.append(error), self.loop.time,
        )  # fmt: skip

    # ---- the wire ----
    async def _connect(self, factory: Callable[[], asyncio.Protocol], name: str) -> tuple[asyncio.Transport, Any]:
        engine = self.engines[name]
        await self.ether.wait(self.rng.choice((0.0, 0.01, 0.05)))
        for _ in range(self.rng.randrange(3)):
            await asyncio.sleep(0)
        if not engine.well and self.rng.random() < self.swarm.refuse:
            raise ConnectionRefusedError(111, "refused")
        if not engine.well and self.rng.random() < self.swarm.swallow:
            await self.ether.wait(10)
        protocol = cast(UpstreamConnection, factory())
        there = EngineConnection(engine)
        there.pooled = lambda: protocol.idle_since_s > 0
        end, _ = self.ether.pair(protocol, there, name)
        self.ends[name] = [pair for pair in self.ends[name] if not pair[0].lost] + [(end, protocol)]
        return end, protocol

    def client(self, habits: Habits, done: Callable[[Client], None]) -> Client:
        client = Client(self.ether, self.rng, habits, self.report, self.books.bodies, done)
        self.ether.pair(ClientConnection(self.listener), client, "198.51.100.7")
        return client

    # ---- the play ----
    def run(self) -> World:
        asyncio.set_event_loop(self.loop)
        try:
            self.loop.after_turn = self.check
            self.loop.run_until_complete(self._play())
        finally:
            self.loop.let_go()
            asyncio.set_event_loop(None)
        return self

    async def _play(self) -> None:
        self.tasks.serve("gate", partial(drive, CheckedGate(self)))
        self.tasks.serve("listener", self.listener.run)
        for _ in range(self.swarm.clients):
            self.ether.later(lambda: self.client(self.swarm.habits, self._done), self.rng.choice((0.0, 0.01, 0.1, 0.3)))
        until_s = self.loop.time() + LONGEST_S
        while self.alive:
            if self.loop.time() > until_s:
                raise DeadlockError(f"{self.alive} clients still wait: {self.listener.connections}")
            await self.ether.wait(0.05)
            self._operate()
        await self._quiet()
        await self._whole_limit()
        self._drain()
        await self.ether.wait(3.0)
        assert not self.listener.connections, f"still open after the drain: {list(self.listener.connections)}"
        await self.tasks.close()

    def _done(self, client: Client) -> None:
        self.alive -= 1

    def _operate(self) -> None:
        """What operators, probers and reloads do at any time."""
        if self.rng.random() > self.swarm.operator:
            return
        name, now = self.rng.choice(list(self.engines)), self.loop.time()
        act = self.rng.randrange(4)
        if act == 0:
            self.gate.perform(self.dispatcher.health(name, self.rng.random() < 0.7, now))
        elif act == 1:
            self.gate.perform(self.dispatcher.drain_upstream(name, self.rng.random() < 0.3, now))
        elif act == 2:
            self.gate.perform(self.dispatcher.hold_limit(name, self.rng.choice((None, 1, 3)), now))
        else:
            retry = replace(self.config.retry, retries=self.rng.randrange(3))
            self.gate.perform(self.dispatcher.reconfigure(replace(self.config, retry=retry), now))

    def _heal(self) -> None:
        now = self.loop.time()
        self.gate.perform(self.dispatcher.reconfigure(self.config, now))
        for name, engine in self.engines.items():
            engine.well = True
            self.gate.perform(self.dispatcher.drain_upstream(name, False, now))
            self.gate.perform(self.dispatcher.health(name, False, now))
            self.gate.perform(self.dispatcher.health(name, True, now))

    async def _quiet(self) -> None:
        """Everybody has gone: nothing may be held."""
        self._heal()
        await self.ether.wait(QUIET_S)
        state = self.dispatcher.snapshot(self.loop.time())
        held = [state.held, state.leaked, state.queue_bytes, *(one.queued for one in state.classes)]
        held += [number for one in state.upstreams for number in (one.in_flight, one.aborting, one.kv_reserved_tokens)]
        assert not any(held), f"still held: {state}"
        assert len(self.tasks) == 2, f"tasks left: {self.tasks}"
        assert not self.listener.connections, f"connections left: {list(self.listener.connections)}"
        for lane in self.gate.lanes.values():
            assert not lane.running and set(lane.pool.open) == set(lane.pool.idle), (
                f"{lane.pool} has more open than idle"
            )
        counts = Counter(record.request_id for record in self.records if record.request_id not in ("", "made"))
        twice = {name: number for name, number in counts.items() if number > 1}
        assert not twice, f"recorded more than once: {twice}"
        lost = [
            ask.nonce
            for ask in self.report.by_nonce.values()
            if ask.complete and ask.status == 200 and not counts[ask.nonce]
        ]
        assert not lost, f"answered and not recorded: {lost}"

    async def _whole_limit(self) -> None:
        """As many run at once as the limit says: fewer is a leak, more a double release."""
        seats = sum(station.seats for station in self.board.stations.values())
        fit = seats if not self.swarm.memory else 1
        for engine in self.engines.values():
            engine.holding = True
        self.books.most_running = self.books.running = 0
        calm = Habits(leave=0, stall=0, partial=0, split=0, pipeline=0, stream=0.0, again=0.0)
        ended: list[Client] = []
        before = self.report.answers.copy()
        for _ in range(seats + 1):
            self.client(calm, ended.append)
        await self.ether.wait(0.4)
        assert fit <= self.books.most_running <= seats, f"{self.books.most_running} ran at once, the limit is {seats}"
        for engine in self.engines.values():
            engine.holding = False
            for go in engine.held:
                go()
        await self.ether.wait(2.0)
        assert len(ended) == seats + 1, f"not answered: {list(self.listener.connections)}"
        served = (self.report.answers - before)["200"]
        assert served >= fit, f"{served} of {seats + 1} were served by healthy engines"

    def _drain(self) -> None:
        self.listener.stop_accepting()
        self.gate.perform(self.dispatcher.drain(self.loop.time()))

    # ---- what must hold after every turn ----
    def check(self) -> None:
        for name, lane in self.gate.lanes.items():
            station = self.board.stations[name]
            assert station.upstream.in_flight == len(lane.running), (
                f"{name}: {station.permits} beside {list(lane.running)}"
            )
            trial = station.upstream._trial
            assert trial is None or trial in station.permits, f"{name}: its one trial is {trial}, which does not run"
            busy = [end for end, protocol in self.ends[name] if not end.ended and protocol not in lane.pool.idle]
            assert len(busy) <= len(lane.running) + len(station.aborting), f"{name}: open beyond its permits: {busy}"
        counted = sum(inbound.counted_bytes for connection in self.listener.connections for inbound in connection.inbox)
        assert self.board.tenants.body_bytes == counted, (
            f"{self.board.tenants.body_bytes} bytes on account, {counted} live"
        )
        self._no_wait_beside_a_free_seat()

    def _no_wait_beside_a_free_seat(self) -> None:
        now = self.loop.time()
        for ticket, excluded, station in self._waiting():
            free = station.name not in excluded and station.upstream.usable and station.has_room
            assert not free or station.block(ticket, station.seats, True, now), (
                f"{ticket.id} waits beside {station.name}"
            )

    def _waiting(self) -> Iterator[tuple[Any, frozenset[str], Any]]:
        for job in self.board.jobs.values():
            if job.entry is not None and job.lane.reservation is None:
                for station in job.lane.stations:
                    yield job.ticket, job.excluded, station


class CheckedGate:
    """The world's gate as it is driven, with a look at what each tick tells."""

    def __init__(self, world: World) -> None:
        self.gate, self.board = world.gate, world.board
        self.expire, self.sweep, self.lagged = world.gate.expire, world.gate.sweep, world.gate.lagged

    def tick(self) -> None:
        progress = {one: one.tokens_so_far() for lane in self.gate.lanes.values() for one in lane.running}
        self.gate.tick()
        for exchange, tokens in progress.items():
            ticket = exchange.ticket
            entry = self.board.stations[ticket.upstream].ledger._entries.get(ticket.id)
            assert ticket.work is not Work.GENERATE or entry is None or entry.generated >= tokens, (
                f"{ticket.id} has generated {tokens}, the ledger knows {entry}"
            )
