from __future__ import annotations

import itertools
import random
import statistics
from collections import Counter

import pytest

from proxy.loadtest.workload import Arrival, Flow, Lengths, RateStep, TraceEntry, Workload, gaps, public, shots


def draws(lengths: Lengths, number: int = 20_000) -> list[int]:
    rng = random.Random(1)
    return [lengths.draw(rng) for _ in range(number)]


@pytest.mark.parametrize(
    ("lengths", "mean", "cv"),
    [
        (Lengths(mean=64), 64, 0),
        (Lengths("uniform", minimum=10, maximum=30), 20, 0.3),
        (Lengths("exponential", mean=500), 500, 1.0),
        (Lengths("lognormal", mean=200, cv=0.8), 200, 0.8),
        (Lengths("values", values=(10, 20), weights=(3, 1)), 12.5, 0.346),
        (Lengths("values", values=(10, 20)), 15, 0.333),
    ],
)
def test_lengths_have_the_mean_and_spread_asked_for(lengths: Lengths, mean: float, cv: float) -> None:
    drawn = draws(lengths)
    assert statistics.fmean(drawn) == pytest.approx(mean, rel=0.03)
    assert statistics.pstdev(drawn) / statistics.fmean(drawn) == pytest.approx(cv, abs=0.04)


def test_lengths_stay_within_their_bounds() -> None:
    drawn = draws(Lengths("lognormal", mean=100, cv=2, minimum=20, maximum=400))
    assert (min(drawn), max(drawn)) == (20, 400)


@pytest.mark.parametrize(
    ("arrival", "cv"),
    [(Arrival("poisson", 20), 1.0), (Arrival("gamma", 20, cv=2), 2.0), (Arrival("constant", 20), 0.0)],
)
def test_open_arrivals_have_their_rate_and_burstiness(arrival: Arrival, cv: float) -> None:
    times = list(itertools.islice(gaps(arrival, random.Random(3)), 20_000))
    between = [after - before for before, after in itertools.pairwise(times)]
    assert statistics.fmean(between) == pytest.approx(0.05, rel=0.05)
    assert statistics.pstdev(between) / statistics.fmean(between) == pytest.approx(cv, abs=0.1)


def test_constant_arrivals_begin_at_once() -> None:
    assert list(itertools.islice(gaps(Arrival("constant", 4), random.Random(1)), 3)) == [0, 0.25, 0.5]


def test_steps_follow_their_rates_over_and_over() -> None:
    arrival = Arrival("steps", steps=(RateStep(10, 10), RateStep(0, 5), RateStep(100, 5)))
    times = list(itertools.takewhile(lambda at_s: at_s < 2000, gaps(arrival, random.Random(2))))
    phases = Counter(int(at_s % 20 // 5) for at_s in times)
    assert phases[2] == 0
    assert phases[0] / 500 == pytest.approx(10, rel=0.05)
    assert phases[1] / 500 == pytest.approx(10, rel=0.05)
    assert phases[3] / 500 == pytest.approx(100, rel=0.05)
    assert times == sorted(times)


def workload(arrival: Arrival, *flows: Flow, **more: object) -> Workload:
    return Workload("w", flows or (Flow("f"),), arrival, **more)  # type: ignore[arg-type]


def test_a_seed_gives_the_same_requests_and_flows_have_their_shares() -> None:
    mixed = workload(Arrival("poisson", 100), Flow("a", share=3), Flow("b"), duration_s=95.0)
    first, again = (list(shots(mixed, random.Random(7))) for _ in range(2))
    assert first == again
    assert [shot.index for shot in first] == list(range(len(first)))
    assert all(shot.at_s is not None and shot.at_s < 100 for shot in first)
    assert Counter(shot.flow.name for shot in first)["a"] / len(first) == pytest.approx(0.75, abs=0.02)


def test_a_closed_loop_never_ends_and_has_no_times() -> None:
    closed = workload(Arrival("closed", concurrency=4))
    assert [shot.at_s for shot in itertools.islice(shots(closed, random.Random(1)), 1000)] == [None] * 1000


def test_recorded_arrivals_keep_times_sizes_and_names() -> None:
    trace = (TraceEntry(2.0, "acme", "low", 9, 0), TraceEntry(1.0, "", "", 5, 6), TraceEntry(99.0, "x", "", 1, 1))
    flows = (Flow("base", stream=False), Flow("acme", api="completions"))
    made = list(shots(workload(Arrival("trace"), *flows, trace=trace, duration_s=50.0), random.Random(1)))
    assert [(shot.at_s, shot.flow.name, shot.prompt_tokens, shot.output_tokens) for shot in made] == [
        (1.0, "base", 5, 6),
        (2.0, "acme/low", 9, 1),
    ]
    assert (made[0].flow.stream, made[1].flow.api) == (False, "completions")
    assert (made[1].flow.tenant, made[1].flow.class_name) == ("acme", "low")


def test_what_results_tell_of_a_workload_holds_no_key() -> None:
    flow = Flow("f", key_env="SECRET_NAME", prompt_tokens=Lengths("uniform", minimum=2, maximum=3))
    told = public(workload(Arrival("gamma", 3, cv=2), flow))
    assert "SECRET_NAME" not in str(told)
    assert told["arrival"] == {"process": "gamma", "rate": 3, "cv": 2}
    assert "'prompt_tokens': {'distribution': 'uniform', 'min': 2, 'max': 3}" in str(told)
    assert public(workload(Arrival("closed", concurrency=3)))["arrival"] == {
        "process": "closed",
        "concurrency": 3,
        "think_s": 0.0,
    }
    stepped = workload(
        Arrival("steps", steps=(RateStep(1, 2),)), Flow("v", prompt_tokens=Lengths("values", values=(1,)))
    )
    assert "'steps': [[1, 2]]" in str(public(stepped))
    assert "'values': [1]" in str(public(stepped))
    assert "'lognormal', 'mean': 9" in str(
        public(workload(Arrival(), Flow("l", output_tokens=Lengths("lognormal", 9))))
    )
