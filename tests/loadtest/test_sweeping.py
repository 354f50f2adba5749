from __future__ import annotations

import json
from typing import Any

import pytest

from proxy.loadtest.blocks import as_markdown, as_page
from proxy.loadtest.curve import Point, point_of
from proxy.loadtest.results import ResultsError
from proxy.loadtest.slo import Slo
from proxy.loadtest.sweeping import (
    charts,
    differences,
    document_blocks,
    fingerprint,
    in_words,
    points_of,
    sweep_document,
    top_of,
)
from proxy.loadtest.workload import Arrival, Flow, Workload
from tests.loadtest.test_compare import run
from tests.loadtest.test_curve import CURVE, point

WORKLOAD = Workload("w", (Flow("f"),), Arrival("closed", concurrency=3))
OF = fingerprint("http://h", "concurrency", WORKLOAD, Slo(0.5), "")


def swept(kind: str = "concurrency") -> dict[str, Any]:
    """Three points: throughput x2, x2.2; latency x1, x3; memory as it goes."""
    done = {}
    for setting, tokens, tpot, kv in ((1, 100, 10, 0.1), (2, 200, 10, 0.2), (4, 220, 30, 0.4)):
        document = run(tokens, tpot, slo=Slo(5.0))
        document["engine"] = {
            "running": {"mean": setting, "peak": setting}, "kv_usage": {"mean": kv, "peak": kv}, "kv_tokens": 1000,
            "preemptions": 5 if setting == 4 else 0, "gpu_memory_bytes": {"mean": 1, "peak": 2**30},
            "gpu_utilization": {"mean": 0.5, "peak": 0.6},
        }  # fmt: skip
        done[float(setting)] = document
    return sweep_document(fingerprint("http://h", kind, WORKLOAD, Slo(5.0), "m"), done)


def test_a_sweep_is_saved_and_read_again() -> None:
    document = json.loads(json.dumps(swept()))
    of, done = points_of(document, "s.json")
    assert (of["swept"], sorted(done)) == ("concurrency", [1, 2, 4])
    assert document["findings"]["knee"] == 2
    assert sweep_document(of, done) == document


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ([], "is no file of penstock sweep"),
        ({"schema": "penstock.sweep/1"}, "is no file of penstock sweep"),
        ({"schema": "penstock.sweep/1", "of": {}, "points": [3]}, "a point has no setting"),
        ({"schema": "penstock.sweep/1", "of": {}, "points": [{"setting": 3}]}, "is no results file"),
    ],
)
def test_other_files_are_refused(document: Any, message: str) -> None:
    with pytest.raises(ResultsError) as error:
        points_of(document, "s.json")
    assert str(error.value).startswith(f"s.json: {message}")


def test_a_damaged_list_holds_no_points() -> None:
    assert points_of({"schema": "penstock.sweep/1", "of": {}, "points": None}, "s") == ({}, {})


def test_a_sweep_goes_on_only_with_the_same_question() -> None:
    other = Workload("w", WORKLOAD.flows, Arrival("closed", concurrency=9))
    assert not differences(OF, fingerprint("http://h", "concurrency", other, Slo(0.5), ""))
    limits = [fingerprint("http://h", "limit", one, Slo(0.5), "") for one in (WORKLOAD, other)]
    assert differences(*limits) == ["workload"]
    assert differences(OF, fingerprint("http://g", "rate", WORKLOAD, Slo(), "m")) == ["model", "slo", "swept", "url"]


def test_the_document_has_points_findings_curves_and_memory() -> None:
    blocks = document_blocks(swept())
    text = as_markdown("T", blocks)
    for words in (
        "| swept | requests under way |", "| 2 | 200.0 |", "Highest throughput: 220.0 output tokens/s at 4",
        "Knee of the curve: 2 requests under way (200.0 tokens/s, 1,100 ms a request)", "## Memory by concurrency",
        "Each running sequence holds 10.00% of the KV cache (100.0 tokens)", "full at about 10 sequences",
        "The engine evicted sequences from 4 on", "| 4 | 4.00 | - | 40.0% | 40.0% | 10.00% | 5 | 50.0% | 1.0 |",
        "Pareto set: 2, 4.", "Lowest latency: 1,100 ms a request (p50) at 1.", "within the objectives: 4 (220.0",
    ):  # fmt: skip
        assert words in text
    assert as_page("T", blocks).count("<svg") == 5


def test_without_success_there_is_only_the_table() -> None:
    document = swept()
    for one in document["points"]:
        one["results"]["total"] |= {"e2e_ms": None, "ttft_ms": None, "tpot_ms": None}
        one["results"]["notes"] = []
    document["points"][0]["results"]["total"]["endings"] = {"silence": 2}
    text = as_markdown("T", document_blocks(document))
    assert "## Notes\n\n- silence: 2" in text
    document["points"][0]["results"]["total"]["endings"] = {}
    text = as_markdown("T", document_blocks(document))
    assert "## What it shows" not in text
    assert "## Notes" not in text
    assert charts([point_of(1, document["points"][0]["results"])], "rate") == []


def test_only_what_was_told_is_drawn_and_said() -> None:
    plain = [point(one.setting, one.tokens_per_s, one.e2e_p50_ms) for one in CURVE]
    lines = "\n".join(in_words(plain, "rate"))
    assert "Nearly all of it is there from 8 on" in lines
    assert "objectives" not in lines
    assert "KV cache" not in lines
    assert [chart.title for chart in charts(plain, "rate")] == [
        "Throughput against time per request (p50)",
        "Throughput",
    ]
    text = as_markdown("T", document_blocks({"of": {"swept": "rate"}, "points": []}))
    assert "Memory" not in text


def test_what_failed_or_never_was_good_is_said() -> None:
    failing = [Point(1, 10, 1, 0.5, e2e_p50_ms=5, good_ratio=0.1), Point(2, 20, 1, 1.0, e2e_p50_ms=6, good_ratio=0.2)]
    lines = "\n".join(in_words(failing, "limit"))
    assert "no setting reaches that" in lines
    assert "Requests failed at: 1." in lines
    assert "Knee" not in lines


@pytest.mark.parametrize(("settings", "logarithmic"), [((1, 8), False), ((1, 64), True)])
def test_axes_are_logarithmic_over_more_than_a_decade(settings: tuple[float, float], logarithmic: bool) -> None:
    drawn = charts([point(one, 10, 10) for one in settings], "concurrency")
    assert drawn[1].x.logarithmic is logarithmic
    assert drawn[1].x.share(settings[1]) <= 1
    assert top_of([]) == 1.0
