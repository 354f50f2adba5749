from __future__ import annotations

from typing import Any

import pytest

from proxy.loadtest.records import Ending
from proxy.loadtest.slo import Slo
from proxy.loadtest.text import aligned, amount, bar, count, engine_lines, summary_text
from tests.loadtest.support import record
from tests.loadtest.test_results import made


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, "-"), (0.0, "0.00"), (1.234, "1.23"), (47.33, "47.33"),
        (179.24, "179.2"), (1234.5, "1,234"), (1e6, "1,000,000"),
    ],
)  # fmt: skip
def test_amounts_have_about_four_digits(value: float | None, shown: str) -> None:
    assert amount(value) == shown


def test_counts() -> None:
    assert (count(1234567), count(None)) == ("1,234,567", "-")


@pytest.mark.parametrize(
    ("value", "top", "shown"),
    [(0, 10, "    "), (5, 10, "██  "), (10, 10, "████"), (20, 10, "████"), (1, 32, "▏   "), (3, 0, "    ")],
)
def test_bars_are_exact_to_an_eighth(value: float, top: float, shown: str) -> None:
    assert bar(value, top, 4) == shown


def test_columns_are_aligned() -> None:
    assert aligned([("a", "1"), ("long", "100")]) == "a       1\nlong  100"


def test_a_run_is_summed_up_with_everything_that_there_is() -> None:
    records = [
        record(),
        record(flow="g", queue_s=0.1),
        record(ending=Ending.STATUS, status=429, detail="status 429: full"),
    ]
    document: dict[str, Any] = made("poisson", Slo(0.5, 0.05), *records)
    document["meta"] |= {"model": "m"}
    document["engine"] = {
        "kv_usage": {"mean": 0.41, "peak": 0.5}, "running": {"mean": 3, "peak": 4}, "preemptions": 7,
        "gpu_memory_bytes": {"mean": 1, "peak": 2**31}, "gpu_utilization": {"mean": 0.9, "peak": 1},
    }  # fmt: skip
    text = summary_text(document)
    for words in (
        "w at http://h, model m", "66.67%", "good (ttft=500ms,itl=50ms)", "TTFT", "queue", "flow", "\ng ",
        "status: 1, for example: status 429: full", "KV cache in use: mean 41.0%, peak 50.0%", "running: mean 3.00",
        "preemptions: 7", "GPU memory: peak 2.0 GiB", "GPU busy: mean 90.0%", "no delay is omitted",
    ):  # fmt: skip
        assert words in text
    assert not [line for line in text.splitlines() if line != line.rstrip()]


def test_where_nothing_succeeded_there_are_no_latencies() -> None:
    document: dict[str, Any] = made("poisson", None, record(ending=Ending.CONNECT))
    document["meta"] |= {"model": ""}
    document["engine"] = None
    text = summary_text(document)
    assert "TTFT" not in text
    assert "connect: 1" in text
    assert engine_lines(None) == []
