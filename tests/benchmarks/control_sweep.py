"""Best static limits, the laws beside them, and the cost of a decision: `python -m tests.benchmarks.control_sweep`.

Prints the oracle that `tests/admission/test_control_scenarios.py` compares with, then every law over seeds.
"""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Callable
from typing import Literal

from proxy.admission.batch_sizer import AdaptiveBatchSizer
from proxy.admission.ledger import Ledger
from proxy.admission.limits import LimitConfig, Target
from tests.admission.fluid import ticks
from tests.admission.plant import Plant, Trace

SINCE_S, UNTIL_S = 60.0, 160.0
GRIDS = {0.025: range(48, 76, 3), 0.040: range(110, 176, 6), 0.080: range(320, 440, 15)}


def run(config: LimitConfig, itl_s: float, seed: int) -> Trace:
    return Plant(AdaptiveBatchSizer("u", config, Target(itl_s=itl_s), 0.0), seed).run(UNTIL_S)


def oracle(itl_s: float, seeds: range) -> tuple[int, float]:
    """Best static limit and its mean goodput."""
    rows = []
    for seats in GRIDS[itl_s]:
        traces = [run(LimitConfig(mode="fixed", initial=seats), itl_s, seed) for seed in seeds]
        rows.append((sum(trace.goodput(itl_s, SINCE_S, UNTIL_S) for trace in traces) / len(traces), seats))
    goodput, seats = max(rows)
    return seats, goodput


def report(law: Literal["model", "aimd", "seed"], itl_s: float, seeds: range, best: tuple[int, float]) -> str:
    seats, goodput = best
    traces = [run(LimitConfig(law=law), itl_s, seed) for seed in seeds]
    settled = [trace.settled_s(seats, 0.15) for trace in traces]
    share = [trace.goodput(itl_s, SINCE_S, UNTIL_S) / goodput for trace in traces]
    attained = [trace.attainment(itl_s, SINCE_S) for trace in traces]
    median_s = sorted(settled)[len(settled) // 2]
    peak = max(moment.in_flight for trace in traces for moment in trace.moments) / seats
    return (
        f"{law:6} {1000 * itl_s:3.0f} ms  settled median {median_s:5.1f} s worst {max(settled):5.1f} s  "
        f"goodput/oracle mean {sum(share) / len(share):.3f} worst {min(share):.3f}  "
        f"attained mean {sum(attained) / len(attained):.3f} worst {min(attained):.3f}  peak {peak:.2f}"
    )


def microseconds(call: Callable[[], object], rounds: int = 2000) -> float:
    """Best of five."""
    best = float("inf")
    for _ in range(5):
        start = time.perf_counter()
        for _ in range(rounds):
            call()
        best = min(best, (time.perf_counter() - start) / rounds)
    return 1e6 * best


def costs() -> str:
    rng, ledger = random.Random(1), Ledger(10**7)
    for index in range(1300):
        ledger.reserve(index, f"t{index % 7}", rng.randint(10, 4000), rng.choice((None, 4096, 100)))
        ledger.progress(index, rng.randint(0, 800))
        if index < 300:
            ledger.lengths.ended(f"t{index % 7}", int(rng.lognormvariate(5.5, 0.8)), 0)
            ledger.release(index, None)
    sizer = AdaptiveBatchSizer("u", LimitConfig(), Target(), 0.0)
    tick_us = microseconds(lambda: ticks([sizer], 100), 1) / 100
    fits_us = microseconds(lambda: ledger.fits("t3", 500, None))
    true_up_us = microseconds(lambda: ledger.progress(700, 900))
    return (
        f"tick {tick_us:.0f} us, fits {fits_us:.1f} us and true-up {true_up_us:.1f} us at {len(ledger)} live requests"
    )


def main() -> None:
    seeds = range(1, 1 + int(sys.argv[1]) if len(sys.argv) > 1 else 5)
    print(costs())
    for itl_s in GRIDS:
        best = oracle(itl_s, seeds)
        print(f"oracle {1000 * itl_s:.0f} ms: {best[0]} seats, {best[1]:.0f} tokens/s")
        laws: tuple[Literal["model", "aimd", "seed"], ...] = ("model", "aimd", "seed")
        for law in laws:
            print(report(law, itl_s, seeds, best))


if __name__ == "__main__":
    main()
