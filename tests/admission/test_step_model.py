"""The fit recovers known coefficients, follows a slowdown by kappa alone, and forgets nothing while idle."""

from __future__ import annotations

import random
from math import log

import pytest

from proxy.admission.step_model import KAPPA_LOG_MAX, Coefficients, StepModel, Vector, solve_bounded

TRUE = Coefficients(a=0.014, b=0.0001, d=0.00004)


def latency_s(n: float, p: float, kappa: float = 1.0) -> float:
    return kappa * (TRUE.a + TRUE.b * n + TRUE.d * p)


def learned(ticks: int = 60, noise: float = 0.05, seed: int = 1) -> StepModel:
    model, rng = StepModel(), random.Random(seed)
    for _ in range(ticks):
        n, p = rng.uniform(8, 150), rng.uniform(0, 600)
        model.learn(latency_s(n, p) * rng.lognormvariate(0, noise), n, p, 1.0)
    return model


def test_unfitted_model_promises_nothing() -> None:
    model = StepModel()
    model.learn(0.02, 8, 0, 1.0)
    assert model.coefficients is None
    assert model.seats_at(0.04, 2.0) is None
    assert model.prefill_rate(8) is None
    assert model.prefill_s(100) == 0.0
    assert model.marginal_gain(8, 2.0) == 1.0
    assert "1 ticks" in repr(model)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_recovers_coefficients(seed: int) -> None:
    model = learned(seed=seed)
    fit = model.coefficients
    assert fit is not None
    assert fit.kappa * fit.a == pytest.approx(TRUE.a, rel=0.10)
    assert fit.kappa * fit.b == pytest.approx(TRUE.b, rel=0.15)
    assert fit.kappa * fit.d == pytest.approx(TRUE.d, rel=0.15)
    assert model.seats_at(0.04, 2.0) == pytest.approx((0.04 - TRUE.a) / (TRUE.b + 2 * TRUE.d), rel=0.10)
    assert model.seats_at(0.001, 2.0) == 1.0
    assert model.prefill_rate(48) == pytest.approx(2000 / latency_s(48, 2000), rel=0.1)
    assert model.prefill_s(1000) == pytest.approx(1000 * TRUE.d, rel=0.15)
    assert model.marginal_gain(100, 2.0) == pytest.approx(0.014 / 0.032, rel=0.1)
    assert model.fit_ratio > 0.8
    assert 140 < model.running_max <= 150


def test_uniform_slowdown_moves_kappa_and_leaves_the_slopes() -> None:
    model = learned(noise=0.0)
    before = model.coefficients
    for _ in range(5):
        model.learn(latency_s(100, 200, kappa=1.5), 100, 200, 1.0)
    after = model.coefficients
    assert before is not None and after is not None
    assert after.kappa / before.kappa == pytest.approx(1.5, rel=0.12)
    assert after.d == pytest.approx(before.d, rel=0.15)
    assert model.step_s(100, 200) == pytest.approx(latency_s(100, 200, 1.5), rel=0.12)


def steady(model: StepModel, rng: random.Random, ticks: int) -> None:
    """Near the floor, a is nine tenths of a step."""
    for _ in range(ticks):
        n, p = rng.uniform(8, 14), rng.uniform(0, 40)
        model.learn(latency_s(n, p) * rng.lognormvariate(0, 0.01), n, p, 0.5)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_one_short_tick_does_not_pin_the_floor(seed: int) -> None:
    model, rng = StepModel(), random.Random(seed)
    steady(model, rng, 100)
    before = model.coefficients
    model.learn(0.7 * latency_s(11, 20), 11, 20, 0.5)
    steady(model, rng, 10)
    after = model.coefficients
    assert before is not None and after is not None
    assert after.a == pytest.approx(before.a, rel=0.05)


def test_a_kappa_that_drifts_far_moves_into_the_fit() -> None:
    model, slopes = learned(noise=0.0), []
    for tick in range(80):
        model.learn(latency_s(100, 200, kappa=1.06**tick), 100, 200, 1.0)
        fit = model.coefficients
        assert fit is not None and abs(model.kappa_log) < KAPPA_LOG_MAX and model.ticks > 60
        slopes.append(fit.b / fit.a)
    assert model.step_s(100, 200) == pytest.approx(latency_s(100, 200, 1.06**79), rel=0.2)
    assert max(slopes) < 2 * min(slopes)


@pytest.mark.parametrize(("odd", "kappa", "starts_anew"), [(2, 100.0, False), (3, 100.0, True), (3, 0.01, True)])
def test_only_the_third_foreign_tick_in_a_row_starts_the_fit_anew(odd: int, kappa: float, starts_anew: bool) -> None:
    model = learned(noise=0.0)
    for tick in range(6):
        model.learn(latency_s(100, 200, kappa=kappa if tick % 3 < odd else 1.0), 100, 200, 1.0)
    assert (model.ticks < 60) == starts_anew


@pytest.mark.parametrize(("ticks_before", "starts_anew"), [(60, True), (4, False)])
def test_an_engine_that_takes_over_step_by_step_is_foreign_too_but_for_a_young_fit(
    ticks_before: int, starts_anew: bool
) -> None:
    model = StepModel()
    for _ in range(ticks_before):
        model.learn(latency_s(20, 40), 20, 40, 1.0)
    told, before = [], model.ticks
    for tick in range(1, 7):
        model.learn(latency_s(20, 40, kappa=1.5**tick), 20, 40, 1.0)
        told.append(model.coefficients is not None)
    assert (model.ticks < before) == starts_anew
    assert all(told) != starts_anew


def test_a_new_fit_holds_nothing_of_the_old_one() -> None:
    model = learned(noise=0.0)
    for tick in range(121):
        model.learn(0.02 * (8.0 if tick % 2 else 1.0), 100, 200, 1.0)
    told, poor = [], [model.poor]
    for n in range(40, 50):
        model.learn(2.0 + 0.05 * n, n, 0, 1.0)
        told.append(model.coefficients is not None)
    assert told == [True, True, *[False] * 2, *[True] * 6]
    assert model.running_max == 49 and model.kappa_log < 0.1 and model.fit_ratio > 0.8
    assert [*poor, model.poor] == [True, False]
    assert model.seats_at(6.0, 0.0) == pytest.approx(80, rel=0.2)


def test_steady_point_is_no_proof_against_the_fit_but_noise_is() -> None:
    model, rng = learned(), random.Random(5)
    for _ in range(60):
        model.learn(latency_s(100, 200) * rng.lognormvariate(0, 0.05), 100, 200, 1.0)
    assert model.fit_ratio > 0.8
    poor = [model.poor]
    for tick in range(120):
        model.learn(0.02 * (8.0 if tick % 2 else 1.0), 100, 200, 1.0)
    poor.append(model.poor)
    for _ in range(120):
        model.learn(model.step_s(100, 200), 100, 200, 1.0)
    assert [*poor, model.poor] == [False, True, False]


def test_restored_fit_answers_at_once_and_goes_on_learning() -> None:
    model = StepModel()
    model.restore(Coefficients(0.014, 0.0001, 0.00004, kappa=1.2))
    assert model.kappa_log == log(1.2)
    assert model.seats_at(0.04, 2.0) == pytest.approx((0.04 / 1.2 - 0.014) / 0.00018)
    model.learn(latency_s(20, 100), 20, 100, 1.0)
    assert model.ticks == 4


@pytest.mark.parametrize(
    ("lowest", "highest", "expected"),
    [
        ((-9.0, -9.0, -9.0), (9.0, 9.0, 9.0), (1.0, -2.0, 3.0)),
        ((-9.0, 0.5, -9.0), (9.0, 9.0, 9.0), (1.0, 0.5, 3.0)),
        ((-9.0, 0.5, -9.0), (0.25, 9.0, 9.0), (0.25, 0.5, 3.0)),
    ],
)
def test_bounds_fix_a_component(lowest: Vector, highest: Vector, expected: Vector) -> None:
    matrix = [[2.0, 0.0, 0.0], [0.0, 3.0, 0.0], [0.0, 0.0, 4.0]]
    assert solve_bounded(matrix, [2.0, -6.0, 12.0], lowest, highest) == pytest.approx(expected)


def test_elimination_solves_a_full_system() -> None:
    matrix = [[4.0, 1.0, 0.5], [1.0, 3.0, 0.25], [0.5, 0.25, 2.0]]
    want = (1.0, -2.0, 3.0)
    right = [sum(value * x for value, x in zip(row, want, strict=True)) for row in matrix]
    assert solve_bounded(matrix, right, (-9.0,) * 3, (9.0,) * 3) == pytest.approx(want)
