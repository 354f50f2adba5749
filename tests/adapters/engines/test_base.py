from __future__ import annotations

import pytest

from proxy.adapters.engines import ENGINES
from proxy.adapters.engines.base import (
    Engine,
    at,
    count,
    items,
    largest,
    merged,
    ratio,
    size,
    summed,
    tells_nothing,
)
from proxy.types import Telemetry

HUGE = 10**400


@pytest.mark.parametrize(
    ("value", "counted", "sized"),
    [
        (3, 3, 3), (3.0, 3, 3), ("652", 652, 652), (0, 0, None), ("None", None, None), ("", None, None),
        (None, None, None), (True, None, None), ([1], None, None), (-1, None, None), (float("nan"), None, None),
        (float("inf"), None, None), (1e300, None, None), (HUGE, None, None), ("1e3", 1000, 1000),
    ],
)  # fmt: skip
def test_counts_from_whatever_an_engine_says(value: object, counted: int | None, sized: int | None) -> None:
    assert (count(value), size(value)) == (counted, sized)


def test_a_product_needs_both_factors() -> None:
    assert (size("652", "16"), size("652", "None"), size(None, 16), size(1e10, 1e10)) == (10432, None, None, None)


@pytest.mark.parametrize(
    ("value", "expected"),
    [(0, 0.0), (0.5, 0.5), ("0.25", 0.25), (1.01, 1.0), (1.2, None), (87, None), (-0.1, None), ("x", None)],
)
def test_a_ratio_lies_between_zero_and_one(value: object, expected: float | None) -> None:
    assert ratio(value) == expected


@pytest.mark.parametrize(
    ("path", "expected"),
    [(("a", 0, "b"), 1), (("a", -1, "c"), 2), (("a", 2), None), (("a", "b"), None), (("x", "y"), None), ((0,), None)],
)
def test_walks_a_document_of_any_shape(path: tuple[str | int, ...], expected: object) -> None:
    assert at({"a": [{"b": 1}, {"c": 2}]}, *path) == expected


def test_lists_and_sums_of_what_is_there() -> None:
    assert list(items({"a": [1, 2]}, "a")) == [1, 2]
    assert list(items({"a": "no list"}, "a")) == list(items(None)) == []
    assert (summed([1, None, 2]), summed([None]), summed([])) == (3, None, None)
    assert (largest([1, None, 2]), largest([None]), largest([0.5, 0.7])) == (2, None, 0.7)


def test_gaps_are_filled_from_the_next_that_tells() -> None:
    live = Telemetry(at_s=5, running=0, engine="vllm")
    info = Telemetry(at_s=1, running=9, kv_tokens=100)
    listed = Telemetry(at_s=2, kv_tokens=7, context_tokens=4096, models=("m",), engine="other")
    expected = Telemetry(at_s=5, running=0, kv_tokens=100, context_tokens=4096, models=("m",), engine="vllm")
    assert merged(live, info, None, listed) == expected
    assert tells_nothing(Telemetry(at_s=3))
    assert not tells_nothing(live)


def test_every_engine_is_registered_under_its_name_with_its_habits() -> None:
    assert {name: engine.name for name, engine in ENGINES.items()} == {name: name for name in ENGINES}
    assert set(ENGINES) == {"vllm", "sglang", "trtllm", "dynamo", "tgi", "llamacpp", "ollama", "openai"}
    assert {name for name, engine in ENGINES.items() if engine.slow_abort} == {"sglang"}


JUNK: list[object] = [None, [], "text", 7, {"engines": 3, "loads": [None, 1], "models": [[]], "internal_states": [0]}]


@pytest.mark.parametrize("engine", ENGINES.values(), ids=lambda engine: str(engine.name))
@pytest.mark.parametrize("junk", JUNK)
def test_junk_tells_nothing(engine: Engine, junk: object) -> None:
    assert tells_nothing(engine.parse_info(junk, 1.0))
    assert tells_nothing(engine.parse_metrics(f"<html>{junk}</html>\nvllm:num_requests_running NaN\n", 1.0))
