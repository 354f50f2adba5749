from __future__ import annotations

import json
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import pytest

from proxy.loadtest.observations import Observation
from proxy.loadtest.records import Ending
from proxy.loadtest.results import (
    SCHEMA,
    Generator,
    ResultsError,
    bottlenecks,
    check_results,
    json_schema,
    results_of,
)
from proxy.loadtest.slo import Slo
from proxy.loadtest.stats import Sketch
from proxy.loadtest.workload import Arrival, Flow, Workload
from tests.loadtest.support import record, tally_of


def sketch(*seconds: float) -> Sketch:
    made = Sketch()
    for value in seconds:
        made.add(value)
    return made


def made(process: str = "poisson", slo: Slo | None = None, *records: Any) -> dict[str, Any]:
    records = records or (record(), record(due_s=1.0, ending=Ending.RESET, detail="gone"))
    return results_of(
        tally_of(*records),
        Workload("w", (Flow("f"),), Arrival(process)),
        slo or Slo(),
        {"url": "http://h"},
        Generator(sketch(0.0001), sketch(0.0), 0.1),
        [Observation(1.0, running=3)],
        ["told before"],
    ).document


@pytest.mark.parametrize("slo", [Slo(), Slo(0.5, 0.05)])
def test_results_fit_their_schema_as_json_too(slo: Slo) -> None:
    document = json.loads(json.dumps(made(slo=slo)))
    schema = json_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(document, schema)
    assert check_results(document, "a.json") == document
    assert document["examples"] == {"reset": "gone"}
    assert document["flows"].keys() == {"f"}
    assert document["engine"]["running"]["peak"] == 3
    assert document["notes"][0] == "told before"


@pytest.mark.parametrize(("process", "words"), [("poisson", "no delay is omitted"), ("closed", "slows down with")])
def test_the_kind_of_loop_is_told(process: str, words: str) -> None:
    assert words in made(process)["notes"][1]


def test_odd_things_about_answers_are_noted() -> None:
    records = [
        record(usage_problem="missing", tokens_from="events"),
        record(output_tokens=33, reconnects=1),
    ]
    notes = "\n".join(made("closed", None, *records)["notes"])
    assert "usage missing in 1 of 2 answers" in notes
    assert "3 tokens come in one event" in notes
    assert "1 requests were sent again" in notes


@pytest.mark.parametrize(
    ("cpu_share", "lag_ms", "delay_ms", "warnings"),
    [(0.5, 4.9, 9.9, []), (0.9, 1, 1, ["used 90% of its core"]), (0.1, 6, 1, ["6.0 ms at p99"]),
     (0.1, 1, 12, ["left 12.0 ms late"])],
)  # fmt: skip
def test_the_generator_says_when_it_is_the_bottleneck(
    cpu_share: float, lag_ms: float, delay_ms: float, warnings: list[str]
) -> None:
    told = {"cpu_share": cpu_share, "lag_ms": {"p99": lag_ms}, "send_delay_ms": {"p99": delay_ms}}
    found = bottlenecks(told)
    assert len(found) == len(warnings)
    for line, words in zip(found, warnings, strict=True):
        assert line.startswith("WARNING")
        assert words in line
    assert not bottlenecks({"cpu_share": 0.1, "lag_ms": None, "send_delay_ms": None})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda one: [], "is no results file"),
        (lambda one: one | {"schema": "other/1"}, f"schema 'other/1' is not '{SCHEMA}'"),
        (lambda one: one | {"meta": 3}, "meta is missing or no mapping"),
        (
            lambda one: one | {"total": one["total"] | {"requests": "3"}},
            "total.requests is missing or of",
        ),
        (lambda one: one | {"total": one["total"] | {"requests": True}}, "total.requests is missing"),
        (lambda one: one | {"total": one["total"] | {"ttft_ms": 3}}, "total.ttft_ms is missing"),
    ],
)
def test_other_files_are_refused_by_name(change: Any, message: str) -> None:
    with pytest.raises(ResultsError) as error:
        check_results(change(made()), "a.json")
    assert str(error.value).startswith(f"a.json: {message}")
