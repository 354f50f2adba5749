"""The benchmark of log lines, without running it."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
import yaml

from tests.benchmarks import log_cost
from tests.benchmarks.data_path.contestants import ours


def test_a_reload_switches_the_lines_of_one_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    signals: list[tuple[int, int]] = []
    monkeypatch.setattr(os, "kill", lambda pid, number: signals.append((pid, number)))
    monkeypatch.setattr(log_cost, "RELOAD_S", 0.0)
    ours(["penstock"], tmp_path, 8001)
    file = tmp_path / "penstock.yaml"
    before = yaml.safe_load(file.read_text(encoding="utf-8"))
    for rate in (0.0, 1.0, 0.0):
        log_cost.switch(file, 7, rate)
        after = yaml.safe_load(file.read_text(encoding="utf-8"))
        assert after == {**before, "log": {"format": "json", "sample_rate": rate}}
    assert signals == [(7, signal.SIGHUP)] * 3


def test_the_ratio_is_that_of_pairs() -> None:
    pairs = [log_cost.Pair(11.0, 10.0), log_cost.Pair(22.0, 20.0), log_cost.Pair(50.0, 40.0), log_cost.Pair(9.0, 10.0)]
    line = log_cost.row(log_cost.MEASURED[0], pairs)
    assert " ".join(line.split()) == "32 connections, 1 kB 16.5 us 15.0 us without ratio 1.100 (0.950 to 1.212)"
