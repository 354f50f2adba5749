from __future__ import annotations

from collections.abc import Callable

import pytest

from proxy.adapters import mishap
from proxy.adapters.forward import Exchange
from proxy.adapters.upstream_pool import Carried, UpstreamPool
from proxy.types import Outcome
from tests.adapters.shell import STREAM_HEAD, Shell, chunk, said, token

FAULT = ValueError("planted")


def told(shell: Shell) -> list[tuple[str, BaseException]]:
    heard: list[tuple[str, BaseException]] = []
    shell.gate.fault = lambda where, error: heard.append((where, error))
    return heard


@pytest.mark.parametrize(
    ("pieces", "act"),
    [
        pytest.param((), ("refuse", Outcome.INTERNAL_ERROR), id="nothing answered yet"),
        pytest.param((STREAM_HEAD, chunk(token())), ("cut", Outcome.INTERNAL_ERROR), id="in a stream"),
    ],
)
def test_a_fault_ends_its_request_and_gives_back_all_that_it_held(pieces: tuple[bytes, ...], act: object) -> None:
    shell = Shell()
    heard = told(shell)
    exchange, sink = shell.ask(stream=True)
    shell.answer(*pieces)
    for _ in range(2):  # the second time there is nothing left to end
        mishap.end_broken(exchange, FAULT)
        shell.settle()
    assert (sink.acts[-1], sink.overs, shell.transport().aborted, shell.clean()) == (act, 1, True, True)
    assert [record.outcome for record in shell.records] == [Outcome.INTERNAL_ERROR]
    assert heard == [("exchange", FAULT)] * 2


def test_a_fault_in_what_waits_takes_it_out_of_the_queue() -> None:
    shell = Shell(seats=1)
    told(shell)
    (runs,) = shell.fill()
    waits, sink = shell.ask()
    mishap.end_broken(waits, FAULT)
    assert sink.acts[-1] == ("refuse", Outcome.INTERNAL_ERROR)
    runs.client_left()
    shell.settle()
    assert shell.clean()


def test_a_second_fault_on_the_way_out_closes_the_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    shell = Shell()
    heard = told(shell)
    exchange, sink = shell.ask()

    def fails(*_: object) -> None:
        raise FAULT

    monkeypatch.setattr(Exchange, "expel", fails)
    mishap.end_broken(exchange, FAULT)
    assert (sink.acts[-1], sink.overs, len(heard)) == (("cut", None), 1, 2)
    assert exchange.ended


def test_a_fault_as_the_client_leaves_keeps_no_seat(monkeypatch: pytest.MonkeyPatch) -> None:
    shell = Shell()
    heard = told(shell)
    exchange, _ = shell.ask()

    def fails(*_: object) -> None:
        raise FAULT

    monkeypatch.setattr(Exchange, "client_left", fails)
    mishap.leave(exchange)
    shell.settle()
    assert (shell.clean(), heard) == (True, [("exchange", FAULT)])


NATIVE = pytest.mark.source  # replaces a method that compiled code calls directly


@pytest.mark.parametrize(
    ("method", "act"),
    [
        pytest.param("granted", lambda shell: None, id="granted", marks=NATIVE),
        pytest.param("connected", lambda shell: None, id="connected", marks=NATIVE),
        pytest.param("answer_head", lambda shell: shell.answer(said()), id="head", marks=NATIVE),
        pytest.param("answer_end", lambda shell: shell.answer(said(b"")), id="end", marks=NATIVE),
        pytest.param("lost", lambda shell: shell.lose(OSError()), id="lost", marks=NATIVE),
        pytest.param("sweep", lambda shell: shell.gate.sweep(), id="sweep"),
    ],
)
def test_whoever_calls_an_exchange_ends_it_when_it_breaks(
    monkeypatch: pytest.MonkeyPatch, method: str, act: Callable[[Shell], None]
) -> None:
    shell = Shell(seats=1)
    heard = told(shell)

    def fails(*_: object) -> None:
        raise FAULT

    with monkeypatch.context() as patch:
        patch.setattr(Exchange, method, fails)
        _, sink = shell.ask()
        act(shell)
        shell.settle()
    assert (sink.acts[-1], heard) == (("refuse", Outcome.INTERNAL_ERROR), [("exchange", FAULT)])
    assert shell.clean()
    other, fine = shell.ask()
    shell.answer(said())
    assert (other.ended, fine.overs) == (True, 1), "the seat is free for the next one"


def test_a_permit_that_cannot_be_used_for_a_fault_of_ours_goes_to_the_next() -> None:
    def fails(pool: UpstreamPool, exchange: Carried) -> None:
        raise FAULT

    shell = Shell(seats=1)
    heard = told(shell)
    opens, shell.pools[0].opens = shell.pools[0].opens, fails
    _, sink = shell.ask()
    shell.pools[0].opens = opens
    shell.settle()
    assert (sink.acts[-1], heard) == (("refuse", Outcome.INTERNAL_ERROR), [("exchange", FAULT)])
    other, _ = shell.ask()
    shell.answer(said())
    assert (other.ended, shell.clean()) == (True, True)


def test_what_a_broken_exchange_left_behind_does_not_touch_the_one_that_took_its_connection(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The end of the first gives seat and connection to the second, before the first one's record fails."""
    shell = Shell(seats=1)
    told(shell)
    shell.ask()
    waits, sink = shell.ask()
    record = shell.relay.record

    def fails(_: object) -> None:
        shell.relay.record = record
        raise FAULT

    shell.relay.record = fails
    shell.answer(said())
    assert not waits.ended
    shell.answer(said())
    assert (waits.ended, sink.overs) == (True, 1)
    assert shell.clean()
