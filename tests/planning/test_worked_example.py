"""Every quoted figure of the worked examples follows from its stated rounding; none is typed in as a result."""

from __future__ import annotations

from math import floor

import pytest

from proxy.planning.worked_example import batch_size_reasoning, cut, nearest, t4_intensities
from tests.planning.support import planned

QUOTED = [40960, 57.5, 1437500, 351, 210, 125, 45.5, 1137500, 167]
RAW = [40960, 57.5, 1437500, 350.95, 210.57, 125.34, 45.5, 1137500, 166.63]
COMPUTED = [40960, 57.5, 1403808, 342, 205, 122, 45.5, 1110839, 162]


def test_quoted_and_computed_figures() -> None:
    steps = batch_size_reasoning()
    assert [step.quoted for step in steps] == QUOTED
    assert [step.computed for step in steps] == COMPUTED
    assert [step.raw for step in steps] == pytest.approx(RAW, abs=0.005)
    assert [step.rounding for step in steps if step.rounding != "exact"] == [
        "to nearest",
        "cut",
        "to nearest",
        "to nearest",
    ]


def test_quoted_figures_need_their_own_rounding() -> None:
    by_name = {step.name: step for step in batch_size_reasoning()}
    assert floor(by_name["seats in memory"].raw) == 350
    assert nearest(by_name["latency-adjusted"].raw) == 211
    assert floor(by_name["latency-adjusted at that fraction"].raw) == 166
    assert (cut(2.9), nearest(2.5)) == (2, 3)
    assert by_name["tokens"].raw * 40_000 == 57.5e9


def test_t4_intensity_about_3_at_batch_1_and_15_to_24_at_batch_8() -> None:
    plan = planned("llama-2-7b-awq", "t4", max_model_len=2048, kv_dtype="fp16")
    assert plan.roofline.ridge == pytest.approx(203, abs=0.5)
    checks = t4_intensities(lambda batch, context: plan.roofline.decode(batch, context).intensity)
    single = [check.computed for check in checks if check.batch == 1]
    eight = {check.context: check for check in checks if check.batch == 8}
    assert all(3 <= value < 3.9 for value in single)
    assert eight[512].low <= eight[512].computed <= eight[512].high
    assert eight[128].computed > eight[512].computed > eight[1024].computed
