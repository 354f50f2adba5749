"""Runs every scenario under every law and finds the best static limits: two processes, results kept by their inputs.

A job is one simulated run; its result is a file named by the hash of all it depends on: the world, the law, the seed,
what is read off, and the text of the code that runs. Best static limits come from a sweep in two passes, first by
factors of 1.2 and then by 5 % around the best of those, on the same traces.
"""

from __future__ import annotations

import ast
import hashlib
import inspect
import json
import multiprocessing
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from proxy.laboratory.measures import Window, attainment, goodput, mean
from tests.benchmarks.scenarios import worlds
from tests.benchmarks.scenarios.limits import LIMITS
from tests.benchmarks.scenarios.loads import LOADS_AND_PROXIES
from tests.benchmarks.scenarios.obstacles import OBSTACLES
from tests.benchmarks.scenarios.others import OTHERS
from tests.benchmarks.scenarios.queues import QUEUES
from tests.benchmarks.scenarios.scenario import Best, Found, Numbers, Oracle, Scenario
from tests.benchmarks.scenarios.strangers import STRANGE
from tests.benchmarks.scenarios.worlds import OURS, World

ROOT = Path(__file__).parents[3]
CACHE = ROOT / "build" / "scenarios"
GROUPS = (*LIMITS, *OBSTACLES, *LOADS_AND_PROXIES, *OTHERS, *STRANGE, *QUEUES)
SCENARIOS: dict[str, Scenario] = {one.key: one for one in sorted(GROUPS, key=lambda one: one.key)}
COARSE, FINE, NEAR = 1.2, 1.05, 1.16
HERE = "tests/benchmarks/scenarios"
# Our own law, which other laws replace: of this code they run constructors, and what answers before the first tick.
LAW = ("batch_sizer", "engine_cap", "limits", "margin", "measure", "outer_loops", "sizer_state", "step_model")
LAW_CODE = tuple(f"proxy/admission/{name}.py" for name in LAW)
ALL_CODE = (
    *(f"proxy/simulator/{name}.py" for name in ("blocks", "engine", "profiles")),
    *(f"proxy/laboratory/{name}.py" for name in ("bench", "lab", "measures", "workload")),
    *(f"{HERE}/{name}.py" for name in ("worlds", "laws")),
    *("proxy/types.py", "proxy/admission/*.py", "proxy/dispatcher/*.py", "proxy/routing/*.py"),
)


def code(patterns: Sequence[str], but: Sequence[str] = ()) -> str:
    """Hash of the sources as parsed: layout and comments decide nothing."""
    digest = hashlib.sha256()
    for path in sorted({path for pattern in patterns for path in ROOT.glob(pattern)} - {ROOT / name for name in but}):
        digest.update(parsed(path.read_text(encoding="utf-8")).encode())
    return digest.hexdigest()


def parsed(text: str) -> str:
    return ast.dump(ast.parse(text))


@dataclass(frozen=True)
class StaticJob:
    """One static limit on one trace; goodput and attainment in each window."""

    world: World
    windows: tuple[Window, ...]
    seats: int
    seed: int
    before: tuple[int, float] | None = None

    @property
    def law(self) -> str:
        if self.before is None:
            return f"static:{self.seats}"
        seats, until_s = self.before
        return f"switch:{seats}:{self.seats}:{until_s}"

    def key(self, sources: dict[str, str]) -> str:
        return f"static limit {self!r} {sources['others']}"

    def do(self) -> list[tuple[float, float]]:
        lab, target = worlds.run(self.world, self.law, self.seed), self.world.target
        return [
            (goodput(lab.requests, target, window), attainment(lab.requests, target, window)) for window in self.windows
        ]

    @property
    def cost_s(self) -> float:
        return self.world.until_s


@dataclass(frozen=True)
class RunJob:
    """One law in one world of a scenario."""

    scenario: str
    world: str
    law: str
    seed: int
    found: tuple[tuple[str, Best], ...]

    def key(self, sources: dict[str, str]) -> str:
        scenario = SCENARIOS[self.scenario]
        reading = inspect.getsource(inspect.getmodule(scenario.read) or sys)
        world = scenario.worlds[self.world]
        return f"run {self!r} {world!r} {sources['ours' if self.law == OURS else 'others']} {parsed(reading)}"

    def do(self) -> dict[str, Any]:
        scenario = SCENARIOS[self.scenario]
        lab = worlds.run(scenario.worlds[self.world], self.law, self.seed)
        result: dict[str, Any] = {"numbers": scenario.read(self.world, lab, dict(self.found))}
        if scenario.picture == self.world and self.seed == scenario.seeds[0]:
            result["series"] = [
                [one.at_s, min(one.limit, 1e4), one.in_flight, one.waiting, one.queued, round(one.itl_s, 5)]
                for one in lab.moments
            ]
        return result

    @property
    def cost_s(self) -> float:
        return SCENARIOS[self.scenario].worlds[self.world].until_s


Job = StaticJob | RunJob


def perform(job: Job) -> tuple[Job, Any, float]:
    begin_s = time.process_time()
    return job, job.do(), time.process_time() - begin_s


class Bench:
    """A pool of processes in front of the cache."""

    def __init__(self, processes: int, tell: Callable[[str, int, int], None], fresh: bool = False) -> None:
        self._processes = processes
        self._tell = tell
        self._fresh = fresh
        self._sources = {"others": code(ALL_CODE, LAW_CODE), "ours": code(ALL_CODE)}
        self.cpu_s = self.simulated_s = 0.0
        self.runs = 0
        CACHE.mkdir(parents=True, exist_ok=True)

    def results(self, name: str, jobs: Iterable[Job]) -> dict[Job, Any]:
        """All results, from the cache or made now."""
        jobs = list(dict.fromkeys(jobs))
        done: dict[Job, Any] = {}
        missing = []
        for job in jobs:
            path = self._path(job)
            if path.exists() and not self._fresh:
                done[job] = json.loads(path.read_text())
            else:
                missing.append(job)
        missing.sort(key=lambda job: -job.cost_s)
        for job, result, cpu_s in self._made(missing):
            self._path(job).write_text(json.dumps(result))
            done[job] = json.loads(json.dumps(result))
            self.cpu_s += cpu_s
            self.simulated_s += job.cost_s
            self.runs += 1
            self._tell(name, len(done), len(jobs))
        return done

    def _made(self, jobs: list[Job]) -> Iterator[tuple[Job, Any, float]]:
        if self._processes == 1 or len(jobs) < 2:
            yield from map(perform, jobs)
            return
        context = multiprocessing.get_context("fork")
        with context.Pool(self._processes) as pool:
            yield from pool.imap_unordered(perform, jobs)

    def _path(self, job: Job) -> Path:
        return CACHE / f"{hashlib.sha256(job.key(self._sources).encode()).hexdigest()[:32]}.json"


def spread(low: float, high: float, factor: float) -> list[int]:
    """Whole limits from low to high in steps of at most `factor` (of one seat, where that is more)."""
    found, value = [], low
    while value < high * 1.0001:
        found.append(round(value))
        value = max(value * factor, value + 1)
    return sorted(set(found))


Asked = dict[tuple[str, str], tuple[Oracle, tuple[int, ...]]]  # (scenario, oracle): where to look, on which seeds


BestBy = dict[str, dict[str, dict[int, Best]]]  # scenario, oracle and seed


def best_static(bench: Bench, scenarios: Sequence[Scenario]) -> BestBy:
    """From a sweep."""
    asked: Asked = {(one.key, name): (oracle, one.seeds) for one in scenarios for name, oracle in one.oracles.items()}
    windows: dict[World, list[Window]] = {}
    for oracle, _ in asked.values():
        of_world = windows.setdefault(oracle.world, [])
        if oracle.window not in of_world:
            of_world.append(oracle.window)

    def job(oracle: Oracle, seats: int, seed: int) -> StaticJob:
        return StaticJob(oracle.world, tuple(windows[oracle.world]), seats, seed, oracle.before)

    grids = {key: spread(oracle.low, oracle.high, COARSE) for key, (oracle, _) in asked.items()}
    results: dict[Job, Any] = {}

    def sweep(name: str) -> None:
        jobs = [
            job(asked[key][0], seats, seed) for key, grid in grids.items() for seats in grid for seed in asked[key][1]
        ]
        results.update(bench.results(name, jobs))

    def seen(oracle: Oracle, seats: int, seed: int) -> tuple[float, float]:
        reached, kept = results[job(oracle, seats, seed)][windows[oracle.world].index(oracle.window)]
        return reached, kept

    def worth(oracle: Oracle, seats: int, seed: int) -> float:
        reached, kept = seen(oracle, seats, seed)
        return reached if kept >= oracle.keeps else 0.0

    def best(key: tuple[str, str]) -> int:
        """The lowest of all where none keeps the targets."""
        oracle, seeds = asked[key]
        return max(grids[key], key=lambda seats: mean(worth(oracle, seats, seed) for seed in seeds))

    sweep("static limits, wide steps")
    for key, grid in grids.items():
        middle = best(key)
        grids[key] = sorted({*grid, *spread(max(1.0, middle / NEAR), middle * NEAR, FINE)})
    sweep("static limits, steps of 5 %")
    found: dict[str, dict[str, dict[int, Best]]] = {}
    for key, (oracle, seeds) in asked.items():
        seats = best(key)
        by_seed = {seed: Best(float(seats), seen(oracle, seats, seed)[0]) for seed in seeds}
        found.setdefault(key[0], {})[key[1]] = by_seed
    return found


def at(found: dict[str, dict[int, Best]], seed: int) -> Found:
    return {name: by_seed[seed] for name, by_seed in found.items()}


def run_all(
    bench: Bench, scenarios: Sequence[Scenario], laws: Sequence[str] | None = None, best: BestBy | None = None
) -> dict[str, Any]:
    """Everything the document says, as plain JSON. `best`: static limits that are known, instead of a sweep."""
    best = best_static(bench, scenarios) if best is None else best
    jobs: dict[tuple[str, str, str, int], RunJob] = {}
    for one in scenarios:
        for law in one.laws:
            for seed in one.seeds if laws is None or law in laws else ():
                known = tuple(sorted(at(best.get(one.key, {}), seed).items()))
                for name in one.worlds:
                    jobs[one.key, name, law, seed] = RunJob(one.key, name, law, seed, known)
    results = bench.results("runs", jobs.values())
    told: dict[str, Any] = {}
    for one in scenarios:
        rows: dict[str, dict[str, Numbers]] = {}
        series: dict[str, Any] = {}
        for law in one.laws:
            for seed in one.seeds:
                if (one.key, next(iter(one.worlds)), law, seed) not in jobs:
                    continue
                made = {name: results[jobs[one.key, name, law, seed]] for name in one.worlds}
                numbers = {name: row["numbers"] for name, row in made.items()}
                rows.setdefault(law, {})[str(seed)] = one.result(numbers, at(best.get(one.key, {}), seed))
                for row in made.values():
                    if "series" in row:
                        series[law] = row["series"]
        static = {
            name: {
                "seats": by_seed[one.seeds[0]].seats,
                "goodput": {str(seed): it.goodput for seed, it in by_seed.items()},
            }
            for name, by_seed in best.get(one.key, {}).items()
        }
        told[one.key] = {"static": static, "laws": rows, "series": series}
    return told


def progress(name: str, done: int, total: int) -> None:
    """On a terminal a bar, else a line now and then."""
    if sys.stderr.isatty():
        filled = round(30 * done / total)
        sys.stderr.write(f"\r{name:30} [{'#' * filled}{'.' * (30 - filled)}] {done}/{total} ")
        if done == total:
            sys.stderr.write("\n")
    elif done == total or done % 200 == 0:
        sys.stderr.write(f"{name}: {done}/{total}\n")
    sys.stderr.flush()


def processes() -> int:
    return max(1, min(2, os.cpu_count() or 1))
