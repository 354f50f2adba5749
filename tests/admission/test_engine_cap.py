"""The engine's own bound: a full engine is told from one that has just been sent something."""

from __future__ import annotations

from math import inf

import pytest

from proxy.admission.engine_cap import EngineCap
from proxy.types import Telemetry

OUTPUT = 256.0


def scrape(at_s: float, running: int | None = 64, waiting: int | None = 10) -> Telemetry:
    return Telemetry(at_s, running, waiting)


@pytest.mark.parametrize(
    ("scrapes", "raised_s", "seats"),
    [
        ([scrape(1), scrape(2)], 0.0, 64),
        ([scrape(1)], 0.0, inf),
        ([scrape(1), scrape(1)], 0.0, inf),  # the same scrape twice
        ([scrape(1, waiting=3), scrape(2, waiting=3)], 0.0, inf),  # below 5 %
        ([scrape(1), scrape(2, waiting=0), scrape(3)], 0.0, inf),
        ([scrape(1), scrape(2)], 1.5, inf),  # read before the last raise
        ([scrape(-2), scrape(-1)], -9.0, inf),  # stale
        ([scrape(1), None, scrape(2, running=None), scrape(3)], 0.0, 64),
        ([scrape(1, running=4), scrape(2, running=4)], 0.0, inf),  # embeddings: they wait for a step, not for a place
        ([scrape(1, running=5), scrape(2, running=5)], 0.0, 5),
        ([scrape(1, running=40), scrape(2, running=70)], 0.0, inf),  # a burst of prompts on its way in
    ],
)
def test_engine_cap_is_learnt_from_two_fresh_scrapes(
    scrapes: list[Telemetry | None], raised_s: float, seats: float
) -> None:
    cap = EngineCap()
    for now, told in enumerate(scrapes, start=1):
        cap.tick(told, float(now) + 0.5, raised_s, OUTPUT)
    assert cap.seats == seats


@pytest.mark.parametrize(
    ("waiting", "output_tokens", "seats"),
    [
        (4, 18.0, inf),  # 28 / 18 come in a step in the mean
        (7, 18.0, 28),
        (2, 256.0, 28),
    ],
)
def test_what_came_since_the_last_step_does_not_make_an_engine_full(
    waiting: int, output_tokens: float, seats: float
) -> None:
    cap = EngineCap()
    for now in (1.0, 2.0, 3.0):
        cap.tick(scrape(now, running=28, waiting=waiting), now, 0.0, output_tokens)
    assert cap.seats == seats


@pytest.mark.parametrize(("waiting", "seats"), [(4, 29.4), (7, 28.0)])
def test_a_probe_goes_on_while_only_arrivals_wait(waiting: int, seats: float) -> None:
    cap = EngineCap()
    cap.refused(28 / 0.9, 0.0)
    for now in (30.0, 31.0, 32.0):
        cap.tick(scrape(now, running=28, waiting=waiting), now, 0.0, 18.0)
    assert cap.seats == pytest.approx(seats)


def test_engine_cap_probes_and_falls_back_at_the_first_sign() -> None:
    cap = EngineCap()
    cap.refused(80, 0.0)
    assert cap.seats == 72
    cap.tick(None, 29.0, 0.0, OUTPUT)
    assert cap.seats == 72
    cap.tick(None, 30.0, 0.0, OUTPUT)
    assert cap.seats == pytest.approx(75.6)
    for now in (31.0, 32.0):
        cap.tick(scrape(now, running=72, waiting=2), now, 0.0, OUTPUT)
    assert cap.seats == 72
