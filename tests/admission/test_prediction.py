"""Output lengths and prompt sizes learnt from finished requests."""

from __future__ import annotations

import random

import pytest

from proxy.admission.prediction import (
    COHORT_MAX,
    ENOUGH,
    FEW,
    OUTPUT_MIN,
    PRIOR,
    TENANTS_MAX,
    WINDOW,
    DriftingMean,
    LengthPredictor,
    PromptCorrection,
    restricted_mean,
)


def taught(outputs: list[int], tenant: str = "a") -> LengthPredictor:
    predictor = LengthPredictor()
    for output in outputs:
        predictor.ended(tenant, output, 0)
    return predictor


@pytest.mark.parametrize(
    ("outputs", "generated", "cap", "expected"),
    [
        ([], 0, None, PRIOR),
        ([], 100, None, PRIOR - 100),
        ([], PRIOR, None, PRIOR // 2),
        ([], 0, 50, 50),
        ([100, 300], 0, None, PRIOR),  # two that ended early prove little
        ([100, 300] * (FEW // 2), 0, None, 200),
        ([100, 300] * FEW, 100, None, 200),
        ([100, 300] * FEW, 299, None, 1),
        ([100, 300] * FEW, 300, None, 150),  # beyond all seen: half of what came so far
        ([10, 20] * FEW, 30, None, PRIOR // 8),
        ([100, 300] * FEW, 300, 310, 10),
        ([100, 300] * FEW, 320, 310, 0),
    ],
)
def test_remaining(outputs: list[int], generated: int, cap: int | None, expected: int) -> None:
    assert taught(outputs).remaining("a", generated, cap) == expected


@pytest.mark.parametrize(("running", "few"), [(2, ENOUGH), (40, 40), (500, FEW)])
def test_a_start_is_over_for_memory_when_as_many_have_ended_as_run(running: int, few: int) -> None:
    predictor = taught([200] * (few - 1))
    predictor.mean_tokens([50] * running)
    assert predictor.remaining("t", 0, None) == PRIOR
    predictor.ended("t", 200, 0)
    assert predictor.remaining("t", 0, None) == 200


def test_tenant_speaks_for_itself_once_known() -> None:
    predictor = taught([1000] * FEW, "long")
    for count in range(1, ENOUGH + 1):
        predictor.ended("short", 10, 0)
        assert (predictor.remaining("short", 0, None) == 10) == (count == ENOUGH)
    assert predictor.remaining("long", 0, None) == 1000


def test_window_forgets_the_oldest() -> None:
    predictor = taught([1000] * WINDOW + [10] * WINDOW)
    assert predictor.remaining("a", 0, None) == 10


def test_least_recent_tenant_is_forgotten() -> None:
    predictor = taught([1000] * ENOUGH, "old")
    for tenant in range(TENANTS_MAX):
        predictor.ended(str(tenant), 10, 0)
    assert predictor.remaining("old", 0, None) == 10  # the common history, by now all short


@pytest.mark.parametrize(
    ("ended", "live", "expected"),
    [
        ([], [], (0.0, 1.0, 0)),
        ([], [40, 70], (70.0, 1.0, 70)),
        ([10, 30], [], (20.0, 0.0, 30)),
        ([10], [10, 30], (10 + 2 / 3 * 20, 2 / 3, 30)),
        ([30], [10], (30.0, 0.0, 30)),
    ],
)
def test_restricted_mean(ended: list[int], live: list[int], expected: tuple[float, float, int]) -> None:
    assert restricted_mean(ended, live) == pytest.approx(expected)


def test_mean_sees_through_the_first_generation_and_then_follows() -> None:
    rng, predictor = random.Random(3), LengthPredictor()
    outputs = [rng.randint(50, 450) for _ in range(200)]
    assert predictor.mean_tokens([]) == OUTPUT_MIN
    for output in sorted(outputs)[:60]:  # the shortest end first
        predictor.ended("a", output, 0)
    assert 1.25 * sum(sorted(outputs)[:60]) / 60 < predictor.mean_tokens([sorted(outputs)[60]] * 140) < 250
    for output in sorted(outputs)[60:]:
        predictor.ended("a", output, 0)
    assert predictor.mean_tokens([]) == pytest.approx(250, rel=0.05)
    for _ in range(500):
        predictor.ended("a", 40, 0)
    assert predictor.mean_tokens([]) == pytest.approx(40, rel=0.1)


def test_outputs_of_a_new_mix_are_counted_apart_and_until_then_expected_like_the_earlier_ones() -> None:
    predictor = taught([400] * FEW)
    assert predictor.mean_tokens([]) == pytest.approx(400, rel=0.1)
    predictor.shifted()
    assert predictor.mix == 1
    assert predictor.mean_tokens([]) == pytest.approx(400), "nothing is known of the new ones"
    for _ in range(50):
        predictor.ended("a", 900, 0)  # long ones of the earlier mix end last
    assert predictor.mean_tokens([90, 20]) == pytest.approx(400)
    for _ in range(20):
        predictor.ended("a", 100, 1)
    assert predictor.mean_tokens([90, 20]) == pytest.approx(100, rel=0.2)
    assert predictor.remaining("b", 0, None) < PRIOR, "what is known of memory is not forgotten"


@pytest.mark.parametrize(
    ("before", "after", "generations", "believed"),
    [
        (100, 100, 0, True),
        (100, 92, 0, True),  # chance
        (100, 60, 0, False),  # a cut: the long ones end
        (60, 100, 0, False),  # a ramp
        (100, 60, 4, True),  # which was long ago
        (8, 5, 0, True),  # so few come and go
    ],
)
def test_longer_outputs_prove_no_change_while_fewer_or_more_run_than_before(
    before: int, after: int, generations: int, believed: bool
) -> None:
    predictor = taught([200, 210, 190, 205] * 200)
    predictor.mean_tokens([100] * before)  # the first generation is over
    for running in (before, *[after] * generations):
        for _ in range(4 * before):
            predictor.ended("a", 200, 0)
        predictor.mean_tokens([100] * running)
    for _ in range(20):
        predictor.mean_tokens([100] * after)
        predictor.ended("a", 400, 0)
    mean = predictor.mean_tokens([100] * after)
    assert mean == pytest.approx(400, rel=0.02) if believed else 220 < mean < 250


def test_cohort_is_bounded() -> None:
    predictor = taught([100] * COHORT_MAX)
    assert predictor.mean_tokens([1] * 5000) < 101
    for _ in range(500):
        predictor.ended("a", 10, 0)
    assert predictor.mean_tokens([1] * 5000) < 20


@pytest.mark.parametrize(
    ("outputs", "expected"), [([7], 1.0), ([0] * ENOUGH, 0.0), ([50] * 20, 0.0), ([50, 150] * 10, 0.5)]
)
def test_variation(outputs: list[int], expected: float) -> None:
    assert taught(outputs).variation == pytest.approx(expected)


@pytest.mark.parametrize(
    ("estimate", "actual", "cached", "ratio", "share"),
    [
        (100, 150, 75, 1.5, 0.5),
        (100, 1, 0, 0.25, 0.0),
        (1, 900, 900, 4.0, 1.0),
        (0, 100, 0, 1.0, 0.0),
        (100, 0, 0, 1.0, 0.0),
    ],
)
def test_prompt_correction(estimate: int, actual: int, cached: int, ratio: float, share: float) -> None:
    prompts = PromptCorrection()
    for _ in range(20):
        prompts.learn(estimate, actual, cached)
    assert prompts.ratio == pytest.approx(ratio)
    assert prompts.cached_share == pytest.approx(share)
    assert prompts.tokens(200) == round(200 * ratio)


@pytest.mark.parametrize(
    ("estimate", "actual", "at_least", "ratio"),
    [
        pytest.param(100, 150, False, 1.5, id="a count"),
        pytest.param(100, 50, False, 0.5, id="a lower one"),
        pytest.param(100, 150, True, 1.5, id="more than so many"),
        pytest.param(100, 50, True, 1.0, id="more than what is expected anyway"),
        pytest.param(100, 10**8, False, 4.0, id="absurd"),
        pytest.param(10_000, 1, False, 0.25, id="absurdly few"),
        pytest.param(0, 100, False, 1.0, id="nothing was estimated"),
    ],
)
def test_a_refused_prompt_s_count_corrects_the_estimate_within_bounds(
    estimate: int, actual: int, at_least: bool, ratio: float
) -> None:
    prompts = PromptCorrection()
    for _ in range(20):
        prompts.counted(estimate, actual, at_least)
    assert prompts.ratio == pytest.approx(ratio)
    assert prompts.cached_share == 0.0
    prompts.learn(100, 100, 50)
    assert prompts.cached_share == 0.5, "what was refused says nothing about the cache"


@pytest.mark.parametrize(("shift", "values"), [(3.0, 8), (0.4, 15)])
def test_a_mean_that_drifts_starts_anew_when_its_subject_has_changed(shift: float, values: int) -> None:
    rng = random.Random(1)
    mean = DriftingMean(1024.0, 0.01)
    for _ in range(300):
        mean.add(500 * rng.lognormvariate(-0.1, 0.45))
    assert mean.mean == pytest.approx(500, rel=0.15)
    for _ in range(values):
        mean.add(shift * 500 * rng.lognormvariate(-0.1, 0.45))
    assert mean.mean == pytest.approx(shift * 500, rel=0.45)


def test_a_mean_that_drifts_believes_no_outlier_and_no_steady_noise() -> None:
    rng = random.Random(2)
    mean = DriftingMean(1024.0, 0.01)
    seen = []
    for index in range(3000):
        mean.add(64_000.0 if index % 100 == 50 else 500 * rng.lognormvariate(-0.5, 1.0))
        seen.append(mean.mean)
    assert min(seen[300:]) > 700 and max(seen[300:]) < 2200
