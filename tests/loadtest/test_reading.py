from __future__ import annotations

from typing import Any

import pytest

from proxy.loadtest.reading import WorkloadError, read_trace, read_workload
from proxy.loadtest.workload import RateStep


def test_everything_may_be_left_out() -> None:
    workload = read_workload({}, "plain")
    assert (workload.name, workload.arrival.process, workload.duration_s, workload.warmup_s) == (
        "plain",
        "poisson",
        45,
        5,
    )
    assert [flow.name for flow in workload.flows] == ["all"]


def test_every_key_arrives() -> None:
    document = {
        "name": "w", "description": "d", "duration_s": 3, "warmup_s": 1, "requests": 9, "seed": 4, "in_flight_max": 2,
        "timeout_s": 5, "silence_s": 6,
        "arrival": {"process": "steps", "steps": [{"rate": 2, "duration_s": 3}]},
        "flows": [
            {"name": "a", "share": 2, "api": "completions", "stream": False, "prompt_tokens": 12, "prefix_tokens": 3,
             "class": "low", "tenant": "t", "key_env": "K", "model": "m", "ignore_eos": False,
             "output_tokens": {"distribution": "values", "values": [3, 4], "weights": [1, 2]}},
            {},
        ],
    }  # fmt: skip
    workload = read_workload(document, "x")
    assert (workload.requests, workload.seed, workload.in_flight_max) == (9, 4, 2)
    assert (workload.timeout_s, workload.silence_s, workload.description) == (5, 6, "d")
    assert workload.arrival.steps == (RateStep(2, 3),)
    first, second = workload.flows
    assert (first.share, first.api, first.stream, first.prefix_tokens) == (2, "completions", False, 3)
    assert (first.class_name, first.tenant, first.key_env, first.model, first.ignore_eos) == (
        "low",
        "t",
        "K",
        "m",
        False,
    )
    assert (first.prompt_tokens.mean, first.output_tokens.values, first.output_tokens.weights) == (12, (3, 4), (1, 2))
    assert second.name == "flow 1"


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ([], "the workload: must be a mapping"),
        ({"durations": 3}, "durations: no such key; choose from: arrival, "),
        ({"duration_s": 0}, "duration_s: must be above 0 and"),
        ({"duration_s": "long"}, "duration_s: must be a number"),
        ({"duration_s": True}, "duration_s: must be a number"),
        ({"duration_s": float("nan")}, "duration_s: must be a number"),
        ({"warmup_s": -1}, "warmup_s: must be at least 0"),
        ({"requests": 1.5}, "requests: must be a whole number"),
        ({"arrival": {"process": "random"}}, "arrival.process: no 'random'; choose one of: poisson"),
        ({"arrival": {"process": "steps"}}, "arrival.steps: must name at least one step"),
        ({"arrival": {"process": "steps", "steps": 3}}, "arrival.steps: must be a list"),
        ({"arrival": {"process": "trace"}}, "trace: recorded arrivals are missing"),
        ({"flows": [{"stream": 1}]}, "flows[0].stream: must be true or false"),
        ({"flows": [{"name": "é"}]}, "flows[0].name: must be printable ASCII text"),
        ({"flows": [{"tenant": "a\nb"}]}, "flows[0].tenant: must be printable ASCII text"),
        ({"flows": [{"name": "a"}, {"name": "a"}]}, "flows: two have the same name"),
        ({"flows": [{"prompt_tokens": 0}]}, "flows[0].prompt_tokens: must be at least 1"),
        ({"flows": [{"prompt_tokens": {"mean": 5, "median": 3}}]}, "flows[0].prompt_tokens.median: no such key"),
        ({"flows": [{"output_tokens": {"min": 9, "max": 3}}]}, "flows[0].output_tokens: min exceeds max"),
        ({"flows": [{"output_tokens": {"distribution": "uniform"}}]}, "flows[0].output_tokens.max: missing"),
        ({"flows": [{"output_tokens": {"distribution": "values"}}]}, "flows[0].output_tokens.values: missing"),
        (
            {"flows": [{"output_tokens": {"distribution": "values", "values": [3], "weights": [0]}}]},
            "flows[0].output_tokens.weights: must be one number for each value",
        ),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named(document: Any, message: str) -> None:
    with pytest.raises(WorkloadError) as error:
        read_workload(document, "w")
    assert str(error.value).startswith(message)


def test_recorded_lines_start_at_zero_in_order_and_at_the_speed_asked_for() -> None:
    lines = [
        '{"t_s": 14, "tenant": "b", "class": "low", "prompt_tokens": 3, "output_tokens": 4}',
        "",
        '{"t_s": 10, "prompt_tokens": 1}',
    ]
    early, late = read_trace(lines, "r", speed=2)
    assert (early.at_s, early.tenant, early.output_tokens) == (0, "", 1)
    assert (late.at_s, late.tenant, late.class_name, late.prompt_tokens, late.output_tokens) == (2, "b", "low", 3, 4)
    workload = read_workload({"arrival": {"process": "trace"}}, "r", (early, late))
    assert (workload.duration_s > 2, workload.warmup_s) == (True, 0)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([], "r: no arrivals in it"),
        (["{"], "r:1: not JSON"),
        (["[" * 100_000], "r:1: not JSON"),
        (["3"], "r:1: must be a mapping"),
        (["{}"], "r:1.t_s: missing"),
        (['{"t_s": 1}', '{"t_s": 1, "prompt_tokens": -1}'], "r:2.prompt_tokens: must be at least 0"),
    ],
)
def test_a_recorded_line_that_is_wrong_is_named(lines: list[str], message: str) -> None:
    with pytest.raises(WorkloadError) as error:
        read_trace(lines, "r")
    assert str(error.value).startswith(message)
