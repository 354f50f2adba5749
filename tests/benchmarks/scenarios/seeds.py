"""Many seeds, under our law alone: a few say where a law fails, not which of two nearly equal ones is better.

The best static limits are those of docs/control.md, run on the same seeds; they are not swept for again.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from math import isinf

from proxy.laboratory.measures import mean
from tests.benchmarks.scenarios.document import goal
from tests.benchmarks.scenarios.scenario import Best, Measure, Numbers, Scenario
from tests.benchmarks.scenarios.sweep import Bench, StaticJob, run_all
from tests.benchmarks.scenarios.worlds import OURS

Known = Mapping[str, Mapping[str, float]]  # by scenario and oracle: seats


def run_seeds(
    bench: Bench, scenarios: Sequence[Scenario], known: Known, seeds: Sequence[int]
) -> dict[str, list[Numbers]]:
    """The measures of our law on each seed, by scenario."""
    best = {one.key: beside(bench, one, known.get(one.key, {}), seeds) for one in scenarios}
    told = run_all(bench, [replace(one, seeds=tuple(seeds), laws=(OURS,)) for one in scenarios], best=best)
    return {key: list(result["laws"][OURS].values()) for key, result in told.items()}


def beside(bench: Bench, one: Scenario, seats: Mapping[str, float], seeds: Sequence[int]) -> dict[str, dict[int, Best]]:
    """What the best static limits give on other seeds, by oracle and seed."""
    jobs = {
        (name, seed): StaticJob(oracle.world, (oracle.window,), round(seats[name]), seed, oracle.before)
        for name, oracle in one.oracles.items()
        for seed in seeds
    }
    results = bench.results(f"static limits of {one.key}", jobs.values())
    found: dict[str, dict[int, Best]] = {}
    for (name, seed), job in jobs.items():
        found.setdefault(name, {})[seed] = Best(float(job.seats), results[job][0][0])
    return found


def lines(one: Scenario, rows: Sequence[Numbers]) -> Iterator[str]:
    """Mean, worst and how many seeds miss the threshold; a seed where something never happens is in no mean."""
    yield f"{one.key}: {one.title}, {len(rows)} seeds"
    for measure in one.measures:
        values = [row[measure.name] for row in rows]
        missed = sum(measure.reached(value) is False for value in values)
        yield (
            f"  {measure.words:68} {goal(measure):>14}  mean {average(measure, values):>8}"
            f"  worst {measure.text(measure.worst(values)):>8}  missed {missed}"
        )


def average(measure: Measure, values: Sequence[float]) -> str:
    some = [value for value in values if not isinf(value)]
    return measure.text(mean(some)) if some else "never"
