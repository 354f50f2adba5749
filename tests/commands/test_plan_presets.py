"""The worked examples as the command prints them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.commands.test_plan import Capture, document, output

FIGURES = ["40,960", "1,437,500", "351", "210", "125", "45.5", "1,137,500", "167", "1,403,808", "342"]


def test_batch_size_reasoning(capsys: Capture, tmp_path: Path) -> None:
    text = output(capsys, "--preset", "batch-size-reasoning")
    assert [figure for figure in FIGURES if figure not in text] == []
    assert "fraction of the memory that is FREE" in text
    found = document(capsys, "--preset", "batch-size-reasoning", "--plot", str(tmp_path / "a.html"))
    assert [step["quoted"] for step in found["steps"]] == [40960, 57.5, 1437500, 351, 210, 125, 45.5, 1137500, 167]
    assert found["kv_bytes_per_token_per_rank"] == 40960
    assert found["engine"]["kv_tokens"] == pytest.approx(1_295_000, rel=0.01)
    assert (tmp_path / "a.html").exists()


def test_t4_roofline(capsys: Capture, tmp_path: Path) -> None:
    text = output(capsys, "--preset", "t4-roofline")
    assert "ridge 203.1 FLOP/byte (quoted 203)" in text
    assert "15-24" in text
    found = document(capsys, "--preset", "t4-roofline", "--plot", str(tmp_path / "a.png"))
    assert [row["batch"] for row in found["decode"]] == [1, 1, 1, 8, 8, 8]
    assert json.dumps(found["ridge_quoted"]) == "203.0"
    assert (tmp_path / "a.png").exists()
