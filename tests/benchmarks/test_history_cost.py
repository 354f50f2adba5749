"""The benchmark of long histories, without running it."""

from __future__ import annotations

import os

import pytest

from tests.benchmarks.history_cost import APART, Window, resident, rows, slope


def test_the_slope_is_the_change_over_the_run_beside_its_error() -> None:
    rising = slope([0.0, 1.0, 2.0], [9.0, 10.0, 11.0])
    assert rising == pytest.approx((0.2, 0.0))
    noisy = slope([0.0, 1.0, 2.0, 3.0], [10.0, 9.0, 11.0, 10.0])
    assert noisy.change == pytest.approx(0.06) and noisy.error == pytest.approx(0.1273, rel=1e-3)
    assert str(noisy) == "+6.0 % (standard error 12.7)"


def test_a_machine_that_becomes_slower_is_no_slope_and_the_first_windows_are_apart() -> None:
    windows = [Window(n, 100.0 * n, 25.0 * n, 50_000_000 + n) for n in range(1, 7)]
    windows[:APART] = [Window(n, 900.0, 1.0, 1) for n in range(1, APART + 1)]
    told = rows(windows)
    assert told[-2:] == [
        "slope of CPU time per request: +0.0 % (standard error 0.0)",
        "slope of resident memory: +0.0 % (standard error 0.0)",
    ]
    assert " ".join(told[2].split()) == "3 requests 300.0 us 4.00 x nginx 50.0 MB"


def test_resident_memory_is_the_kernels() -> None:
    before = resident(os.getpid())
    held = bytearray(os.urandom(1 << 16) * 512)  # 32 MB
    assert resident(os.getpid()) - before > 0.8 * len(held)
