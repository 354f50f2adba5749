"""Plays seeds until one fails or time is up: `python -m tests.simulation --seeds 100000`."""

from __future__ import annotations

import argparse
import time
from collections import Counter

from tests.simulation.loop import START_S
from tests.simulation.world import SeedError, play


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seeds", type=int, default=10_000, help="how many worlds (default 10000)")
    parser.add_argument("--first", type=int, default=0, help="the first seed (default 0)")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="stop after this long")
    arguments = parser.parse_args()
    started_s = time.perf_counter()
    requests = turns = played = 0
    virtual_s = 0.0
    answers: Counter[str] = Counter()
    failed: list[str] = []
    for seed in range(arguments.first, arguments.first + arguments.seeds):
        if time.perf_counter() - started_s > arguments.seconds:
            break
        try:
            world = play(seed)
        except SeedError as error:
            failed.append(str(error))
            print(error, flush=True)
            continue
        played += 1
        requests += world.report.asked
        turns += world.loop.turns
        virtual_s += world.loop.time() - START_S
        answers += world.report.answers
    took_s = time.perf_counter() - started_s
    print(
        f"{played} worlds, {requests} requests, {turns} turns, {virtual_s / 3600:.1f} virtual hours in {took_s:.0f} s"
    )
    print(", ".join(f"{name}: {count}" for name, count in answers.most_common()))
    print(f"{len(failed)} seeds failed")
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
