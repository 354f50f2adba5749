from __future__ import annotations

import asyncio
from collections import Counter
from functools import partial
from types import SimpleNamespace

import pytest

from proxy.adapters import metrics as m
from proxy.adapters.gate import EXPIRE_S, TICK_S, Bypass, Lane, Waiter, drive
from proxy.adapters.upstream_pool import UpstreamConnection
from proxy.types import Failure, Outcome, Reading, Refuse, WorkEstimate
from tests.adapters.shell import STREAM_HEAD, Shell, chunk, said, token


class Told(Waiter):
    """A waiter that keeps what it hears; `ends` lets it fail its permit at once, from inside the grant."""

    def __init__(self, shell: Shell, ends: int = 0) -> None:
        self.shell, self.ends = shell, ends
        self.heard: list[object] = []
        self.ticket = shell.ticket(shell.inbound())
        self.ticket.client = self

    def connected(self, connection: UpstreamConnection, reused: bool) -> None: ...
    def connect_failed(self, reason: str, own: bool) -> None: ...
    def answer_head(self, status: int, reason: bytes, headers: list[tuple[bytes, bytes]]) -> None: ...
    def answer_body(self, pieces: list[bytes], last: bool) -> None: ...
    def answer_end(self) -> None: ...
    def lost(self, reason: str) -> None: ...
    def upload_paused(self, paused: bool) -> None: ...
    def broke(self, error: Exception) -> None: ...

    def granted(self, upstream: str) -> None:
        self.heard.append(upstream)
        if self.ends:
            self.ends -= 1
            self.shell.gate.failed(self.ticket, Failure.CONNECT)
            self.heard.append("after")

    def refused(self, refusal: Refuse) -> None:
        self.heard.append(refusal.outcome)


def test_decisions_raised_by_a_decision_are_performed_after_it() -> None:
    shell = Shell(upstreams=2)
    told = Told(shell, ends=2)
    shell.gate.submit(told.ticket)
    assert told.heard == ["u0", "after", "u1", "after", Outcome.UPSTREAM_ERROR]
    assert shell.count(m.RETRIES, "u0", "connect") == shell.count(m.RETRIES, "u1", "connect") == 1


def test_a_waiter_that_breaks_does_not_lock_the_gate() -> None:
    shell = Shell()
    broken, fine = Told(shell), Told(shell)
    broken.ticket.client = object()
    with pytest.raises((AttributeError, TypeError)):
        shell.gate.submit(broken.ticket)
    shell.gate.submit(fine.ticket)
    assert fine.heard == ["u0"]


@pytest.mark.parametrize(
    ("status", "body", "ratio"),
    [
        pytest.param(400, b'{"error":"prompt is too long: 20 tokens > 8 maximum"}', 2.0, id="its length"),
        pytest.param(400, b'{"error":"no such parameter"}', 1.0, id="something else"),
        pytest.param(500, b'{"error":"prompt is too long: 20 tokens > 8 maximum"}', 1.0, id="not a refusal"),
    ],
)
def test_an_engine_s_refusal_for_length_teaches_the_size_of_prompts(status: int, body: bytes, ratio: float) -> None:
    shell = Shell()
    told = Told(shell)
    told.ticket.estimate = WorkEstimate(prompt_tokens=10)
    shell.gate.submit(told.ticket)
    shell.gate.refused_by_engine(told.ticket, status, body)
    assert shell.dispatcher._board.stations["u0"].ledger.prompts.ratio == ratio


@pytest.mark.parametrize(
    ("failure", "counted"),
    [(Failure.CONNECT, 1), (Failure.SHED, 1), (Failure.STALE, 1), (Failure.RESET, 0), (Failure.TIMEOUT, 0)],
)
def test_only_failures_that_may_be_tried_again_count_as_retries(failure: Failure, counted: int) -> None:
    shell = Shell()
    told = Told(shell)
    shell.gate.submit(told.ticket)
    shell.gate.failed(told.ticket, failure)
    assert shell.count(m.RETRIES, "u0", failure.value) == counted


def test_expiry_refuses_and_a_cancelled_permit_goes_to_the_next() -> None:
    shell = Shell(seats=1, queue_timeout_s=5.0)
    first, second, third = Told(shell), Told(shell), Told(shell)
    for told in (first, second):
        shell.gate.submit(told.ticket)
    shell.now += 3.0
    third.ticket.arrived_s = shell.now
    shell.gate.submit(third.ticket)
    shell.now += 2.5
    shell.gate.expire()
    shell.gate.cancelled(first.ticket)
    shell.gate.aborted(first.ticket)
    assert (first.heard, second.heard, third.heard) == (["u0"], [Outcome.QUEUE_TIMEOUT], ["u0"])
    assert shell.dispatcher.snapshot(shell.now).held == 1


def test_what_the_operator_decides_is_performed() -> None:
    shell = Shell(seats=1)
    first, second = Told(shell), Told(shell)
    for told in (first, second):
        shell.gate.submit(told.ticket)
    shell.gate.perform(shell.dispatcher.hold_limit("u0", 2, shell.now))
    assert second.heard == ["u0"]
    assert shell.count(m.LIMIT_CHANGES, "u0", "up", "held") == 1


def lane() -> Lane:
    return Shell().gate.lanes["u0"]


def test_a_reading_holds_the_sums_since_the_last_one() -> None:
    one = lane()
    one.gap_s, one.events, one.tokens_per_event = 0.5, 10, 2.0
    assert one.reading() == Reading(gap_s=0.5, tokens=20.0)
    assert one.reading() == Reading()


@pytest.mark.parametrize(
    ("tokens", "events", "expected"),
    [(40, 20, 1.05), (40, 7, 1.0), (0, 10, 0.975), (10_000, 10, 1.0 + 0.05 * 63)],
    ids=["two a piece", "too short to tell", "at least a half", "at most 64"],
)
def test_tokens_per_event_follow_finished_streams(tokens: int, events: int, expected: float) -> None:
    one = lane()
    one.calibrate(tokens, events)
    assert one.tokens_per_event == pytest.approx(expected)


def test_a_tick_hands_gaps_and_progress_over() -> None:
    shell = Shell()
    exchange, _ = shell.ask(stream=True)
    shell.answer(STREAM_HEAD, chunk(token()))
    shell.now += 0.04
    shell.answer(chunk(token()))
    shell.now += 0.5
    shell.gate.tick()
    assert shell.count(m.ITL, "u0") == 1
    assert exchange.ticket.generated_tokens == 2
    shell.gate.tick()
    assert shell.count(m.ITL, "u0") == 1


def test_idle_connections_are_swept() -> None:
    shell = Shell()
    shell.ask()
    shell.answer(said())
    shell.now += 4.1
    shell.gate.sweep()
    shell.settle()
    assert (list(shell.pools[0].idle), shell.pools[0].open) == ([], set())


def test_the_lane_of_a_removed_upstream_goes_with_its_last_exchange() -> None:
    shell = Shell(upstreams=2)
    exchange, _ = shell.ask(stream=True)
    for pool in shell.pools:
        pool.close()
    shell.gate.sweep()
    assert set(shell.gate.lanes) == {exchange.ticket.upstream}
    exchange.client_left()
    shell.gate.sweep()
    assert not shell.gate.lanes


def test_the_loop_expires_every_50_ms_ticks_twice_a_second_and_measures_how_late_it_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shell = Shell()
    calls = Counter[str]()
    gate = SimpleNamespace(lagged=shell.gate.lagged)
    for name in ("expire", "tick", "sweep"):
        setattr(gate, name, partial(calls.update, [name]))
    waits: list[float] = []

    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        now = 0.0
        monkeypatch.setattr(loop, "time", lambda: now)

        async def wait(wait_s: float) -> None:
            nonlocal now
            waits.append(wait_s)
            now += wait_s + (1.0 if len(waits) == 30 else 0.0)
            if len(waits) == 30:
                shell.gate.lanes["u0"].gap_s, shell.gate.lanes["u0"].events = 9.0, 3
            if len(waits) == 32:
                raise asyncio.CancelledError

        monkeypatch.setattr(asyncio, "sleep", wait)
        await drive(gate)

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(scenario())
    assert waits[:29] == pytest.approx([EXPIRE_S] * 29)
    assert waits[30] == 0.0, "what came while it stood still is read first"
    assert shell.gate.lanes["u0"].reading().gap_s == 0.0, "and its gaps are not the engine's"
    assert calls == {"expire": 30, "tick": 30 * EXPIRE_S // TICK_S + 1, "sweep": 30 * EXPIRE_S // TICK_S + 1}
    assert shell.count(m.LOOP_LAG) == 30


# ---- routes that take no seat ----


def test_bypass_takes_any_usable_upstream_without_a_permit() -> None:
    shell = Shell(seats=1)
    shell.fill()
    gate = Bypass(shell.gate)
    told = Told(shell)
    gate.submit(told.ticket)
    gate.first_token(told.ticket, shell.now)
    gate.finished(told.ticket, Outcome.SUCCESS, None)
    gate.cancelled(told.ticket)
    assert (told.heard, told.ticket.upstream, shell.dispatcher.snapshot(shell.now).held) == (["u0"], "u0", 1)


@pytest.mark.parametrize(
    ("failures", "heard"),
    [
        ([Failure.CONNECT], ["u0", "u1"]),
        ([Failure.CONNECT, Failure.CONNECT], ["u0", "u1", Outcome.UPSTREAM_ERROR]),
        ([Failure.RESET], ["u0", Outcome.UPSTREAM_ERROR]),
        ([Failure.STALE], ["u0", Outcome.UPSTREAM_ERROR]),
        ([Failure.TIMEOUT], ["u0", Outcome.UPSTREAM_TIMEOUT]),
        ([Failure.SHED], ["u0", Outcome.UPSTREAM_STATUS]),
    ],
)
def test_bypass_tries_again_only_where_nothing_was_sent(failures: list[Failure], heard: list[object]) -> None:
    shell = Shell(upstreams=2)
    gate = Bypass(shell.gate)
    told = Told(shell)
    gate.submit(told.ticket)
    for failure in failures:
        gate.failed(told.ticket, failure)
    assert told.heard == heard


def test_bypass_refuses_where_no_upstream_is_usable() -> None:
    shell = Shell()
    shell.gate.perform(shell.dispatcher.health("u0", False, shell.now))
    told = Told(shell)
    Bypass(shell.gate).submit(told.ticket)
    assert told.heard == [Outcome.NO_UPSTREAM]
