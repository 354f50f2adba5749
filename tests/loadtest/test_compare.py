"""The comparison says what moved and why, from files alone."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from proxy.loadtest.blocks import as_markdown, as_page
from proxy.loadtest.compare import (
    analysis,
    caveats,
    change_text,
    changes,
    charts,
    comparison,
    decoding,
    inconsistencies,
    name_of,
    single,
)
from proxy.loadtest.records import Ending
from proxy.loadtest.slo import Slo
from tests.loadtest.support import record
from tests.loadtest.test_results import made

NAMES = ("old", "new")


def run(
    tokens_per_s: float, tpot_ms: float, ttft_ms: float = 100.0, requests_per_s: float = 1.0, **more: Any
) -> dict[str, Any]:
    """A closed run with these figures, or what `more` says of it."""
    document = made(more.pop("process", "closed"), more.pop("slo", None), record(), record(due_s=1.0))
    document["meta"] |= {"model": "m", "label": ""}
    total = document["total"]
    total["output_tokens_per_s"] = total["steady"]["output_tokens_per_s"] = tokens_per_s
    total["requests_per_s"] = total["steady"]["requests_per_s"] = requests_per_s
    for key, value in (("tpot_ms", tpot_ms), ("ttft_ms", ttft_ms), ("e2e_ms", ttft_ms + 100 * tpot_ms)):
        total[key] = {"count": 2} | dict.fromkeys(("mean", "p50", "p90", "p95", "p99", "max"), value)
    document["workload"] |= more
    return document


@pytest.mark.parametrize(
    ("ratio", "text"),
    [(None, "-"), (1.0, "+0.0%"), (0.9, "-10.0%"), (4.5, "+350.0%, x4.50"), (0.25, "-75.0%, x0.25"), (0.0, "-100.0%")],
)
def test_changes_are_shown_in_percent_and_large_ones_as_factors(ratio: float | None, text: str) -> None:
    assert change_text(ratio) == text


def test_only_figures_of_both_runs_are_compared() -> None:
    rows = {row.name: row for row in changes(run(100, 20), run(150, 25, slo=Slo(1.0)))}
    assert rows["throughput (output tok/s)"].shown() == ("throughput (output tok/s)", "100.0", "150.0", "+50.0%")
    assert rows["requests"].shown()[1:3] == ("2", "2")
    assert rows["success rate"].shown()[1] == "100.00%"
    assert rows["TPOT p99 (ms)"].ratio == 1.25
    assert not [name for name in rows if name.startswith(("good", "queue"))]


def said(before: dict[str, Any], after: dict[str, Any]) -> str:
    return "\n".join(analysis(before, after, NAMES))


def test_a_larger_batch_is_found_by_little_s_law_and_explained() -> None:
    before, after = run(36.8, 27.2, 6000, 0.3), run(196, 40.8, 600, 1.5)
    assert decoding(before) == pytest.approx(1.0, abs=0.01)
    assert decoding(after) == pytest.approx(8.0, abs=0.01)
    text = said(before, after)
    assert "Token throughput rose from 36.80 to 196.0 (+432.6%, x5.33)." in text
    assert "1.00 requests were decoding at once in old and 8.00 in new: the batch is x7.99, a step takes x1.50" in text
    assert "A step reads all weights once" in text
    assert "Time per output token (p50) rose from 27.20 to 40.80 (+50.0%)" in text
    assert "Time to first token (p50) fell from 6,000 to 600.0" in text
    assert "about 1.80 requests waited at any time in the first run, 0.90 in the second" in text


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        (run(100, 20), run(101, 20), "Nothing moved by more than 3 %."),
        (run(100, 20), run(100, 40), "The larger batch bought nothing"),
        (run(100, 20), run(50, 40), "Steps are slower at the same batch"),
        (run(100, 20), run(50, 20), "so tokens come x0.50 as fast."),
        (run(100, 20), run(100, 20, 200), "Time to first token (p50) rose from 100.0 to 200.0 (+100.0%, x2.00)."),
        (run(100, 20, requests_per_s=2), run(200, 20, requests_per_s=4), "Request throughput rose from 2.00 to 4.00"),
    ],
)
def test_other_causes_are_told_apart(before: dict[str, Any], after: dict[str, Any], words: str) -> None:
    assert words in said(before, after)


def test_a_given_rate_explains_equal_request_throughput_and_saturation_is_told() -> None:
    rate: dict[str, Any] = {"arrival": {"process": "poisson", "rate": 20.0}, "process": "poisson"}
    before, after = run(22, 27, requests_per_s=19.3, **rate), run(99, 40, requests_per_s=19.2, **rate)
    assert "because requests arrive at a given rate: 20.00 a second" in said(before, after)
    after["total"]["steady"]["requests_per_s"] = 8.0
    assert "In the second run only 8.00 of 20.00 requests a second were served" in said(before, after)


def test_success_and_goodput_are_told() -> None:
    before, after = run(100, 20, slo=Slo(1.0)), run(100, 20, slo=Slo(1.0))
    after["total"]["success_rate"], after["total"]["goodput"]["ratio"] = 0.5, 0.25
    text = said(before, after)
    assert "The success rate fell from 100.00% to 50.00% (-50.0%, x0.50)." in text
    assert "The share of good requests fell from 100.00% to 25.00%" in text
    before["total"]["success_rate"] = 0.0
    assert "The success rate moved from 0.00% to 50.00%." in said(before, after)


def test_without_streams_there_is_no_talk_of_batches() -> None:
    before, after = run(100, 20), run(200, 20)
    before["total"]["tpot_ms"] = before["total"]["ttft_ms"] = None
    assert decoding(before) is None
    assert "Little" not in said(before, after)
    assert [chart.title for chart in charts(before, after, NAMES)] == ["end to end by percentile"]


def test_runs_that_cannot_be_compared_are_marked() -> None:
    before, after = run(100, 20), run(100, 20, seed=9, arrival={"process": "closed", "concurrency": 4})
    after["meta"] |= {"model": "other", "interrupted": True}
    lines = "\n".join(caveats(before, after))
    for words in (
        "differ in arrival: {'process'",
        "differ in seed: 0 against 9",
        "different models",
        "was interrupted",
    ):
        assert words in lines
    assert not caveats(before, copy.deepcopy(before))


def test_what_cannot_be_is_found_in_a_file() -> None:
    document = run(22.2, 27.22, 15_505)
    document["total"]["e2e_ms"]["p50"] = 12_796
    assert inconsistencies(document) == ["TTFT p50 exceeds the end-to-end time of the same requests"]
    assert "the first run is inconsistent" in caveats(document, document)[0]
    document["total"]["e2e_ms"]["count"] = 3  # other requests: not comparable
    assert not inconsistencies(document)


def test_the_document_holds_tables_bars_notes_and_failures() -> None:
    before, after = run(36.8, 27.2), run(196, 40.8)
    after["examples"] = {"status": "status 429: full"}
    after["total"]["endings"] = {"success": 1, "status": 1}
    text = as_markdown("T", comparison(before, after, NAMES))
    for words in (
        "|  | old | new |", "| load | closed, 1 under way | closed, 1 under way |", "## Summary", "## Raw metrics",
        "| TPOT p50 (ms) | 27.20 | 40.80 | +50.0% |", "## Notes on new", "status: 1, for example: status 429: full",
        "old  ██████", "## What moved, and why",
    ):  # fmt: skip
        assert words in text
    assert name_of(before, "file") == "file"
    assert name_of({"meta": {"label": "mine"}}, "file") == "mine"


def test_one_run_alone() -> None:
    document = made("poisson", None, record(), record(ending=Ending.RESET, detail="gone"))
    text = as_markdown("T", single(document))
    for words in ("| success | 50.00% |", "| TTFT | 100.0 |", "reset: 1, for example: gone", "running: mean 3.00"):
        assert words in text
    assert "| ITL |" in text
    document["total"]["ttft_ms"]["p99"] = 1e9
    assert "inconsistent" in as_markdown("T", single(document))
    bare = run(10, 20)
    bare["notes"], bare["engine"] = [], None
    assert "## Notes" not in as_markdown("T", single(bare))


def test_a_run_without_any_success_can_be_compared_and_shown() -> None:
    nothing = made("closed", Slo(1.0), record(ending=Ending.CONNECT, detail="Connection refused"))
    for pair in ((nothing, run(100, 20, slo=Slo(1.0))), (run(100, 20), nothing), (nothing, nothing)):
        text = as_markdown("T", comparison(*pair, NAMES))
        assert "connect: 1, for example: Connection refused" in text
        assert as_page("T", comparison(*pair, NAMES))
    assert "| success | 0.00% |" in as_markdown("T", single(nothing))
