"""Some of the scenarios of docs/control.md on one seed, and the page itself: it is what its results say.

A threshold that the page calls reached is reached again here. The best static limits are those that the page was made
with: sweeping for them takes minutes.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Any, cast

import pytest

from proxy.laboratory.workload import Stream
from tests.benchmarks.scenarios import __main__ as command
from tests.benchmarks.scenarios import sweep, worlds
from tests.benchmarks.scenarios.__main__ import PAGE, kept
from tests.benchmarks.scenarios.document import document, worst
from tests.benchmarks.scenarios.scenario import Best, Measure, Oracle
from tests.benchmarks.scenarios.sweep import LAW_CODE, ROOT, SCENARIOS, Bench, Job, StaticJob, best_static, code
from tests.benchmarks.scenarios.worlds import OURS


@pytest.fixture(scope="module")
def results() -> dict[str, Any]:
    return kept()


def test_the_page_is_made_of_its_results(results: dict[str, Any]) -> None:
    assert PAGE.read_text(encoding="utf-8") == document(list(SCENARIOS.values()), results)


@pytest.mark.parametrize("key", ["A", "C", "E", "F", "G", "I", "O", "P", "T"])
def test_a_threshold_reached_on_the_page_is_reached_again(key: str, results: dict[str, Any]) -> None:
    one, told = SCENARIOS[key], results[key]
    seed = one.seeds[0]
    found = {name: Best(best["seats"], best["goodput"][str(seed)]) for name, best in told["static"].items()}
    numbers = {name: one.read(name, worlds.run(world, OURS, seed), found) for name, world in one.worlds.items()}
    measured = one.result(numbers, found)
    judged = [measure for measure in one.measures if measure.reached(worst(measure, told["laws"][OURS]))]
    assert judged
    missed = {m.words: m.text(measured[m.name]) for m in judged if not m.reached(measured[m.name])}
    assert not missed


@pytest.mark.parametrize(
    ("at_least", "at_most", "expected"), [(0.95, None, 0.9), (None, 1.0, 1.2), (0.95, 1.05, 1.2), (1.0, 1.2, 0.9)]
)
def test_the_worst_seed_is_the_one_furthest_from_what_is_wanted(
    at_least: float | None, at_most: float | None, expected: float
) -> None:
    measure = Measure("it", "it", at_least=at_least, at_most=at_most)
    assert measure.worst([1.0, 0.9, 1.2]) == expected


@pytest.mark.parametrize(
    ("show", "worst_of"), [("ratio", 0.9), ("percent", 0.9), ("count", 0.9), ("s", 1.2), ("ms", 1.2)]
)
def test_without_a_threshold_more_is_better_of_anything_but_time(show: str, worst_of: float) -> None:
    assert Measure("it", "it", show).worst([1.0, 0.9, 1.2]) == worst_of


@pytest.mark.source  # a static limit takes the place of the sizer, which is native
def test_a_static_limit_tells_goodput_and_attainment_of_each_window() -> None:
    world = worlds.World((Stream(5.0, 0.0, 15.0),), 15.0)
    made = StaticJob(world, ((2.0, 12.0), (90.0, 99.0)), 64, 1).do()
    assert [(goodput > 0, attainment) for goodput, attainment in made] == [(True, 1.0), (False, 1.0)]


@pytest.mark.source
def test_limits_of_one_who_knows_switch_with_the_engine() -> None:
    world = worlds.World((Stream(20.0, 0.0, 15.0),), 15.0)
    lab = worlds.run(world, StaticJob(world, (), 4, 1, before=(9, 8.0)).law, 1)
    assert [one.in_flight for one in lab.moments if one.at_s < 8.0][-1] == 9
    assert lab.moments[-1].in_flight == 4


class Linear:
    """In place of runs: goodput grows with the limit, up to 20, and above 10 all are late."""

    def __init__(self) -> None:
        self.runs: list[StaticJob] = []

    def results(self, _: str, jobs: Iterable[Job]) -> dict[Job, Any]:
        found: dict[Job, Any] = {}
        for job in jobs:
            assert isinstance(job, StaticJob)
            found[job] = [[min(job.seats, 20), float(job.seats <= 10)]] * len(job.windows)
            self.runs.append(job)
        return found


def test_the_best_static_limit_that_keeps_the_targets_comes_from_the_same_runs() -> None:
    world = worlds.World((Stream(5.0, 0.0, 15.0),), 15.0)
    oracles = {
        name: Oracle(world, (2.0, 12.0), low, 40.0, keeps)
        for name, low, keeps in (("any", 20.0, 0.0), ("keeping", 10.0, 0.9), ("hopeless", 30.0, 0.9))
    }
    bench = Linear()
    one = replace(SCENARIOS["A"], oracles=oracles)
    found = best_static(cast("Bench", bench), [one])["A"]
    assert found["any"] == dict.fromkeys(one.seeds, Best(20.0, 20.0))
    assert found["keeping"] == dict.fromkeys(one.seeds, Best(10.0, 10.0))
    assert found["hopeless"] == dict.fromkeys(one.seeds, Best(26.0, 20.0)), "the lowest of all"
    assert len({(job.seats, job.seed) for job in bench.runs}) == len(set(bench.runs))


@pytest.mark.source  # what is compiled calls without a profiler
@pytest.mark.parametrize(("key", "law"), [("F", "dynamic"), ("I", "static:60"), ("O", "static:100"), ("T", "aimd")])
def test_other_laws_run_nothing_of_ours_but_what_answers_before_the_first_tick(key: str, law: str) -> None:
    """So results of theirs that are kept stay true when our law changes, and only then."""
    called: set[str] = set()
    ours = {str(ROOT / name) for name in LAW_CODE}

    def profiled(frame: FrameType, event: str, _: object) -> None:
        if event == "call" and frame.f_code.co_filename in ours:
            called.add(frame.f_code.co_qualname)

    world = next(iter(SCENARIOS[key].worlds.values()))
    before = sys.getprofile()
    sys.setprofile(profiled)
    try:
        worlds.run(replace(world, until_s=8.0), law, 1)
    finally:
        sys.setprofile(before)
    assert "AdaptiveBatchSizer.__init__" in called
    constants = {"law_of", "MarginLoop.margin", "Price.cost"}
    constants |= {f"StepModel.{name}" for name in ("coefficients", "fit_ratio", "prefill_rate")}
    names = ("_hard_bound", "epoch", "kv_factor", "limit", "prefill_rate", "prefill_tokens_max", "seats")
    constants |= {f"AdaptiveBatchSizer.{name}" for name in (*names, "service_cost", "set_ceiling", "state")}
    assert {name for name in called if not name.endswith(".__init__")} <= constants


def test_what_decides_results_of_other_laws_is_all_code_but_our_law() -> None:
    queue, law = "proxy/admission/queue.py", "proxy/admission/margin.py"
    assert all((ROOT / name).is_file() for name in LAW_CODE)
    assert code([queue, law], LAW_CODE) == code([queue])
    assert len({code([queue, law]), code([queue]), code([law])}) == 3


@pytest.mark.source  # another law takes the place of the sizer, which is native
def test_the_same_seed_gives_the_same_figures(results: dict[str, Any]) -> None:
    one = SCENARIOS["G"]
    found = {name: Best(best["seats"], best["goodput"]["1"]) for name, best in results["G"]["static"].items()}
    first, second = (one.read("capped", worlds.run(one.worlds["capped"], "vegas", 1), found) for _ in range(2))
    assert first == second
    assert {name: pytest.approx(value, rel=1e-6) for name, value in first.items()} == results["G"]["laws"]["vegas"]["1"]


@pytest.mark.source  # another law takes the place of the sizer, which is native
@pytest.mark.parametrize("law", ["none", "fixed", "seed-e2e", "seed", "aimd", "vegas", "gradient2", "envoy", "dynamic"])
def test_each_law_of_the_ladder_moves_as_it_says(law: str) -> None:
    """On a slow start: the limit after 20 s, and whether it has moved at all."""
    world = worlds.World((Stream(20.0, 0.0, 20.0),), 20.0)
    limits = [one.limit for one in worlds.run(world, law, 1).moments]
    still = len(set(limits)) == 1
    assert still == (law in ("none", "fixed", "envoy"))  # Envoy's first measures its baseline at 3
    assert min(limits) >= 1


@pytest.mark.source  # a static limit takes the place of the sizer, which is native
def test_more_seeds_are_told_by_mean_worst_and_misses(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str], results: dict[str, Any]
) -> None:
    monkeypatch.setattr(sweep, "CACHE", tmp_path)
    monkeypatch.setattr(sys, "argv", ["scenarios", "--only", "T", "--seeds", "2-3"])
    assert command.main() == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "T: embeddings: work without tokens, 2 seeds"
    pair, (goodput, attainment, level) = [results["T"]["laws"][OURS][seed]["goodput"] for seed in "23"], said[1:]
    assert f"mean {sum(pair) / 2:8.3f}  worst {min(pair):8.3f}  missed 0" in goodput
    assert attainment.split()[-2:] == ["missed", "0"]
    assert "mean    never  worst    never" in level


@pytest.mark.parametrize("text", ["", "x", "4-3", "1-y"])
def test_seeds_that_are_no_range_are_refused(
    text: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["scenarios", "--seeds", text])
    with pytest.raises(SystemExit) as stopped:
        command.main()
    assert stopped.value.code == 2
    assert "argument --seeds: invalid span value" in capsys.readouterr().err
