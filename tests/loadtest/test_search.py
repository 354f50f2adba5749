"""The search against engines that are formulas: where it ends, and in how many runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from proxy.loadtest.curve import Point
from proxy.loadtest.search import Aim, Search, Step, Trial, judge, use_cases

AIM = Aim(50, 500)


def point(concurrency: int, tokens_per_s: float = 100.0, **more: Any) -> Point:
    values = {"success_rate": 1.0, "good_ratio": 1.0, "e2e_p50_ms": 100.0} | more
    return Point(concurrency, tokens_per_s, 1.0, **values)


def breaking_above(limit: int, tokens_per_s: Callable[[int], float] = lambda n: 10.0 * n) -> Callable[[int], Point]:
    return lambda n: point(n, tokens_per_s(n), good_ratio=1.0 if n <= limit else 0.5)


def searched(engine: Callable[[int], Point], aim: Aim = AIM, start: int = 1) -> Search:
    search = Search(aim, start)
    for _ in range(40):
        if (step := search.next()) is None:
            return search
        search.heard(engine(step.concurrency))
    raise AssertionError("the search does not end")


@pytest.mark.parametrize("limit", [1, 2, 3, 5, 8, 13, 40, 63, 64, 65, 100, 200, 700])
def test_the_answer_holds_with_headroom_and_is_not_far_below_the_limit(limit: int) -> None:
    search = searched(breaking_above(limit))
    confirmed = search.confirmed
    assert confirmed is not None
    assert confirmed.step.phase == "confirm"
    assert 0.55 * limit <= confirmed.step.concurrency <= limit
    if limit >= 8:
        assert confirmed.step.concurrency < limit
    assert len(search.trials) <= 14


def test_the_steps_are_growth_middle_and_a_quarter_less() -> None:
    steps = [(trial.step.phase, trial.step.concurrency) for trial in searched(breaking_above(20)).trials]
    assert steps == [("grow", 1), ("grow", 2), ("grow", 4), ("grow", 8), ("grow", 16), ("grow", 32), ("narrow", 24),
                     ("confirm", 18)]  # fmt: skip
    held_in_the_middle = [(t.step.phase, t.step.concurrency) for t in searched(breaking_above(25)).trials][-2:]
    assert held_in_the_middle == [("narrow", 24), ("confirm", 24)]


def test_a_confirmation_that_fails_takes_another_quarter() -> None:
    heard: list[int] = []

    def moody(n: int) -> Point:
        heard.append(n)
        return breaking_above(20 if len(heard) < 8 else 15)(n)

    search = searched(moody)
    assert [trial.step.concurrency for trial in search.trials if trial.step.phase == "confirm"] == [18, 13]


def test_where_throughput_stops_growing_more_load_is_not_tried() -> None:
    search = searched(breaking_above(10_000, lambda n: 10.0 * min(n, 16)))
    assert search.saturated
    assert search.confirmed is not None
    assert search.confirmed.step.concurrency == 16
    assert max(trial.step.concurrency for trial in search.trials) == 32


def test_the_highest_allowed_is_confirmed_as_it_is() -> None:
    search = searched(breaking_above(10_000), Aim(50, 500, concurrency_max=50), start=20)
    assert [trial.step.concurrency for trial in search.trials] == [20, 40, 50, 50]
    assert not search.saturated


def test_no_setting_at_all() -> None:
    search = searched(breaking_above(0))
    assert (search.confirmed, len(search.trials)) == (None, 1)
    late = searched(breaking_above(0), start=8)
    assert late.confirmed is None
    assert [trial.step.concurrency for trial in late.trials] == [8, 4, 3, 2, 1]


@pytest.mark.parametrize(
    ("more", "confirming", "problem"),
    [
        ({}, False, ""),
        ({"success_rate": 0.9}, False, "10.0% of requests failed"),
        ({"success_rate": 0.0, "tokens_per_s": 0.0}, False, "100.0% of requests failed"),
        (
            {"good_ratio": 0.94, "ttft_p99_ms": 700.4},
            False,
            "only 94.0% of requests within the target (TTFT p99 700 of",
        ),
        ({"good_ratio": 0.96}, False, ""),
        ({"preemptions": 3}, False, "the engine evicted 3 sequences"),
        ({"kv_peak": 0.97}, False, "the KV cache was 97% full"),
        ({"kv_peak": 0.8, "kv_mean": 0.75}, False, ""),
        ({"kv_peak": 0.8, "kv_mean": 0.75}, True, "75% of the KV cache in use, above 70%"),
        ({"kv_peak": 0.8, "kv_mean": 0.65}, True, ""),
    ],
)
def test_verdicts(more: dict[str, Any], confirming: bool, problem: str) -> None:
    found = "; ".join(judge(point(4, **more), AIM, confirming))
    assert found.startswith(problem) if problem else not found


def trial(concurrency: int, tokens_per_s: float, e2e_ms: float, **more: Any) -> Trial:
    return Trial(Step(concurrency, "grow"), point(concurrency, tokens_per_s, e2e_p50_ms=e2e_ms, **more), ())


def test_use_cases() -> None:
    trials = [trial(1, 100, 1000), trial(4, 380, 1050), trial(8, 600, 1300), trial(16, 650, 2400), trial(32, 660, 4800)]
    found = {case.name: case.concurrency for case in use_cases(trials, trials[1])}
    assert found == {"latency": 4, "balanced": 4, "throughput": 16, "cost": 8}
    assert list(found)[1] == "balanced"
    assert "balanced" not in {case.name for case in use_cases(trials, None)}
    assert not use_cases([trial(1, 0, 1), trial(2, 5, 1, success_rate=0.5)], None)
