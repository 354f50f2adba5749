"""The benchmark through sockets, without sockets: its engine, its oracle, and what it measures."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.benchmarks.over_http.__main__ import Run, joined, lines
from tests.benchmarks.over_http.cases import CASES
from tests.benchmarks.over_http.engine import Asked, Engine, Kind, Sequence, trace
from tests.benchmarks.over_http.load import Client, request
from tests.benchmarks.over_http.oracle import Fixed, Served, Target, attainment, best, fixed, goodput
from tests.benchmarks.over_http.serving import Face, Serving

QUIET = Kind(base_s=0.01, per_sequence_s=0.001, per_context_s=1e-6, per_prompt_s=1e-4, noise=0.0, budget=100)


def served(engine: Engine, *sequences: Sequence) -> list[float]:
    """Run it dry; how long each step took."""
    engine.waiting.extend(sequences)
    now, steps = 0.0, list[float]()
    while step_s := engine.begin():
        now += step_s
        steps.append(step_s)
        engine.finish(now)
    return steps


# ---- engine ----


def test_a_step_costs_what_it_holds_reads_and_gives() -> None:
    one = Sequence(0, 150, 3, 0.0)
    steps = served(Engine(QUIET, Random(1)), one)
    assert steps == pytest.approx([
        0.01 + 100 * 1e-4,  # the budget's worth of the prompt
        0.01 + 100 * 1e-6 + 50 * 1e-4,  # its rest, and the first token
        0.01 + 0.001 + 150 * 1e-6,
        0.01 + 0.001 + 151 * 1e-6,
    ])  # fmt: skip
    assert (one.first_s, one.ended_s) == pytest.approx((sum(steps[:2]), sum(steps)))
    assert one.made == 3


def test_a_slower_engine_takes_longer() -> None:
    engine = Engine(QUIET, Random(1))
    engine.slower = 1.5
    assert served(engine, Sequence(0, 50, 1, 0.0)) == pytest.approx([1.5 * (0.01 + 50 * 1e-4)])


def test_where_the_cache_is_full_the_youngest_computes_its_own_again() -> None:
    old, young = Sequence(0, 40, 30, 0.0), Sequence(1, 40, 30, 0.0)
    engine = Engine(QUIET._replace(cache_tokens=100), Random(1))
    served(engine, old, young)
    assert old.made == young.made == 30
    assert old.ended_s < young.ended_s
    assert engine.preemptions == 1
    assert engine.recomputed == 50 and engine.computed == 2 * (40 + 29) + 50
    assert engine.cache_use == 0


@given(
    st.lists(st.tuples(st.integers(1, 60), st.integers(1, 20)), min_size=1, max_size=8),
    st.integers(90, 200),
    st.lists(st.tuples(st.integers(0, 40), st.integers(0, 7))),
)
def test_tokens_are_conserved_whoever_leaves(
    sizes: list[tuple[int, int]], cache: int, leaving: list[tuple[int, int]]
) -> None:
    engine = Engine(QUIET._replace(cache_tokens=cache), Random(1))
    every = [Sequence(number, *size, 0.0) for number, size in enumerate(sizes)]
    engine.waiting.extend(every)
    gone, now, half = set[Sequence](), 0.0, 0

    def leave() -> None:
        """Before a step, or while it runs."""
        for at, number in leaving:
            if at == half and number < len(every) and not every[number].ended_s:
                gone.add(every[number])
                engine.drop(every[number])

    while step_s := engine.begin():
        now, half = now + step_s, half + 1
        leave()
        for one in engine.finish(now):
            assert one not in gone
        half += 1
        leave()
        assert engine.cache_use * cache == pytest.approx(sum(one.taken for one in engine.running))
        assert engine.cache_use <= 1
    assert all(one.made == one.output for one in every if one not in gone)
    assert (engine.present, engine.cache_use) == (0, 0)


def test_a_trace_has_the_rate_and_the_means_that_were_asked_for() -> None:
    found = trace(Random(1), 50.0, 100.0, 300, 120, 1.5)
    assert len(found) / 100.0 == pytest.approx(50.0, rel=0.05)
    assert sum(one.prompt for one in found) / len(found) == pytest.approx(300, rel=0.05)
    assert sum(one.output for one in found) / len(found) == pytest.approx(120, rel=0.05)
    assert [one.number for one in found] == list(range(len(found)))


# ---- the best fixed limit ----


def test_no_more_than_the_limit_run_and_the_first_to_come_is_the_first_to_go() -> None:
    asked = [Asked(number, 0.1 * number, 50, 2) for number in range(3)]
    kind = QUIET._replace(per_sequence_s=1.0)
    found = fixed(kind, asked, 1, 100.0, 1)
    alone_s = 0.01 + 50 * 1e-4 + 0.01 + 1.0 + 50e-6
    assert [one.ended_s for one in found] == pytest.approx([alone_s * number for number in (1, 2, 3)])
    assert found[2].ttft_s == pytest.approx(0.01 + 50 * 1e-4)  # from when it was let in
    assert found[0].itl_s == pytest.approx(0.01 + 1.0 + 50e-6)


def test_nothing_moves_until_somebody_comes() -> None:
    assert fixed(QUIET, [Asked(0, 5.0, 50, 1)], 4, 100.0, 1)[0].ended_s == pytest.approx(5.0 + 0.015)


def test_the_best_limit_is_the_one_that_just_keeps_the_target() -> None:
    kind, target = QUIET._replace(per_context_s=0.0, per_prompt_s=0.0), Target(0.0301, 1.0)  # 20 seats
    asked = trace(Random(3), 30.0, 30.0, 10, 60, 4.0)
    found, keeping = best(kind, asked, target, 10.0, 30.0, about=15.0)
    assert found.limit in (19, 20) and found == keeping
    assert found.goodput == pytest.approx(found.limit / (0.01 + 0.001 * found.limit), rel=0.1)
    assert best(kind, asked, target, 10.0, 30.0, 10.0, slower=1.5)[0].limit == 10


def test_the_best_limit_may_keep_less_than_the_target_and_another_keeps_it() -> None:
    target = Target(0.05, 1.0)
    met, late = Served(7, 1.0, 0.1, 0.01), Served(7, 1.0, 0.1, 0.06)

    def of_limit(kind: Kind, asked: list[Asked], limit: int, *_: object) -> list[Served]:
        return [met] * limit if limit <= 10 else [met] * limit + [late] if limit <= 13 else [late] * limit

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tests.benchmarks.over_http.oracle.fixed", of_limit)
        assert [one.limit for one in best(QUIET, [], target, 0.0, 10.0, about=12.0)] == [13, 10]
        patch.setattr("tests.benchmarks.over_http.oracle.fixed", lambda *_: [met, late])
        assert best(QUIET, [], target, 0.0, 10.0, about=12.0)[1] == Fixed(6, 0.7, 0.5)


def test_what_is_late_or_outside_the_window_is_no_goodput() -> None:
    target = Target(0.05, 1.0)
    found = [
        Served(10, 1.0, 1.0, 0.05),
        Served(20, 1.5, 1.1, 0.05),
        Served(40, 1.5, 0.5, 0.06),
        Served(80, 2.0, 0.1, 0.01),
    ]
    assert goodput(found, target, 1.0, 2.0) == 10
    assert attainment(found, target, 1.0, 2.0) == pytest.approx(1 / 3)
    assert attainment(found, target, 5.0, 6.0) == 1


# ---- what is measured ----


class Wire(asyncio.Transport):
    """Keeps what is written."""

    def __init__(self) -> None:
        super().__init__()
        self.written, self.closed = b"", False

    def write(self, data: Any) -> None:
        self.written += data

    def close(self) -> None:
        self.closed = True


def test_a_client_counts_tokens_however_they_are_cut() -> None:
    whole = b'HTTP/1.1 200 OK\r\n\r\ndata: {"delta":1}\n\ndata: {"delta":2}\n\n0\r\n\r\n'
    for cut in range(20, len(whole) - 5):
        now = iter((3.0, 4.0, 5.0))
        client, wire = Client(Asked(7, 0.0, 5, 2), 1, lambda now=now: next(now)), Wire()  # type: ignore[misc]
        client.connection_made(wire)
        client.data_received(whole[:cut])
        client.data_received(whole[cut:])
        assert (client.tokens, client.whole, wire.closed) == (2, True, True)
        assert client.first_s == 3.0 and client.last_s in (3.0, 4.0)


def test_a_refused_client_has_no_answer() -> None:
    client, wire = Client(Asked(7, 0.0, 5, 2), 1, lambda: 1.0), Wire()
    client.connection_made(wire)
    client.data_received(b"HTTP/1.1 503 Gone\r\ncontent-length: 2\r\n\r\n{}")
    assert (client.whole, wire.closed) == (False, True)


async def until(what: Callable[[], object]) -> None:
    end_s = asyncio.get_running_loop().time() + 10.0
    while not what():
        assert asyncio.get_running_loop().time() < end_s
        await asyncio.sleep(0)


def test_the_engine_answers_as_it_was_asked_and_its_records_meet_those_of_the_client() -> None:
    async def run() -> None:
        clock = asyncio.get_running_loop().time
        serving = Serving(Engine(QUIET._replace(base_s=1e-4), Random(1)), clock)
        asked = Asked(7, 0.0, 5, 3)
        face, engine_side, client, client_side = Face(serving), Wire(), Client(asked, 9, clock), Wire()
        face.connection_made(engine_side)
        client.connection_made(client_side)
        for piece in (client_side.written[:30], client_side.written[30:]):
            face.data_received(piece)
        await until(lambda: 7 in serving.ended)
        client.data_received(engine_side.written)
        assert client.whole and engine_side.written.count(b'"stop"') == 1
        assert b'"usage":{"prompt_tokens":5,"completion_tokens":3,"total_tokens":8}' in engine_side.written
        found = joined([client, Client(Asked(8, 0.0, 5, 3), 9, clock)], serving)
        assert [one.output for one in found] == [3]
        assert found[0].ttft_s == client.first_s - serving.ended[7].came_s > 0

    asyncio.run(run())


def test_a_client_that_leaves_takes_nothing_with_it() -> None:
    async def run() -> None:
        serving = Serving(Engine(QUIET, Random(1)), asyncio.get_running_loop().time)
        face = Face(serving)
        face.connection_made(Wire())
        face.data_received(request(Asked(1, 0.0, 500, 100_000)))
        assert serving.engine.present == 1
        face.connection_lost(None)
        assert (serving.engine.present, serving.streams) == (0, {})

    asyncio.run(run())


def test_what_else_is_asked_of_the_engine() -> None:
    serving, wire = Serving(Engine(QUIET._replace(cache_tokens=1600), Random(1)), lambda: 0.0), Wire()
    face = Face(serving)
    face.connection_made(wire)
    face.data_received(b"GET /metrics HTTP/1.1\r\n\r\n")
    assert b'num_gpu_blocks="100"' in wire.written and b"vllm:num_requests_running 0\n" in wire.written
    wire.written = b""
    face.data_received(b"GET /v1/models HTTP/1.1\r\n\r\n")
    assert json.loads(wire.written.partition(b"\r\n\r\n")[2])["data"][0]["id"] == "m"


def test_the_table_names_phase_limit_and_what_was_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.benchmarks.over_http import __main__ as command

    monkeypatch.setattr(command, "best", lambda *_: (Fixed(10, 50.0, 0.9), Fixed(20, 40.0, 0.96)))
    case = CASES[3]._replace(proxies=2)
    answers = [Served(100, 20.0 + number, 0.1, 0.01 if number % 4 else 1.0) for number in range(80)]
    run = Run(answers, [40, 40], [(0.5 * number, 10) for number in range(200)], 200, 3)
    assert lines(case, [], run) == [
        "| memory binds first | cold | 10 (90 %) | 0 s | 1.500 | 20 (96 %) | never | 1.875 | 75.0 % |",
        "| memory binds first | tokens computed again | | | | | | | 1.5 % |",
        "| memory binds first | Jain's index of the proxies | | | | | | | 1.000 |",
    ]
    slow = lines(
        CASES[0], [], run._replace(moments=[(60.0 + number, 10 if number > 4 else 30) for number in range(70)])
    )
    away = lines(CASES[0], [], run._replace(moments=[(1.0 * at, 20) for at in range(130)]))
    assert [row.split(" | ")[3:7:3] for row in away] == [["never", "0 s"]] * 2
    reached = ["10 (90 %)", "5 s", "0.600", "20 (96 %)", "never", "0.750", "75.0 % |"]
    assert slow[1].split(" | ") == ["| small model, short answers", "1.5 times slower", *reached]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_load_is_half_more_than_the_engine_can_do(case: Any) -> None:
    asked = trace(Random(1), case.rate(), 60.0, case.prompt, case.output, case.shape)
    found = fixed(case.kind, asked, round(case.seats()), 60.0, 1)
    done = sum(one.output for one in found if one.ended_s >= 20.0) / 40.0
    assert 1.3 < case.rate() * case.output / done < 1.8
