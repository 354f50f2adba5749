"""What the log lines cost: python -m tests.benchmarks.log_cost --penstock .venv/bin/penstock

CPU time per request with a line for each and with none, in turn and of one process, which a reload switches over: two
processes of the same program differ by as much as lines cost. The ratio is the median over pairs of windows, and its
quartiles tell how far these lie apart. Needs two cores; the upstream and the load share the first.
"""

from __future__ import annotations

import os
import shlex
import signal
import statistics
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

from tests.benchmarks.data_path.__main__ import (
    FIND_LIMIT_S,
    MANY,
    answer_first,
    asking,
    await_port,
    measure,
    process,
    tell,
)
from tests.benchmarks.data_path.cases import CASES, Case
from tests.benchmarks.data_path.contestants import free_port, ours

MEASURED = CASES[1:3]
RELOAD_S = 0.3
RATES = {"lines": 1.0, "none": 0.0}


class Pair(NamedTuple):
    """Microseconds per request."""

    lines: float
    none: float


def switch(file: Path, pid: int, rate: float) -> None:
    """Another sample rate, by a reload."""
    text = file.read_text(encoding="utf-8")
    head, key, rest = text.rpartition("sample_rate: ")
    file.write_text(f"{head}{key}{rate}{rest[rest.index('}') :]}", encoding="utf-8")
    os.kill(pid, signal.SIGHUP)
    time.sleep(RELOAD_S)


def run(penstock: list[str], pairs: int, seconds: float) -> dict[Case, list[Pair]]:
    found: dict[Case, list[Pair]] = {case: [] for case in MEASURED}
    with ExitStack() as stack:
        folder, upstream = Path(stack.enter_context(tempfile.TemporaryDirectory())), free_port()
        engine = (sys.executable, "-m", "tests.benchmarks.data_path.upstream", str(upstream))
        stack.enter_context(process(0, *engine, log=folder / "upstream.log"))
        await_port(upstream)
        contestant = ours(penstock, folder, upstream)
        child = stack.enter_context(process(1, *contestant.command, log=folder / "penstock.log"))
        await_port(contestant.port)
        answer_first(contestant.port)
        measure(MANY, contestant.port, MANY.connections, [child.pid], FIND_LIMIT_S)
        for number in range(pairs):
            for case in MEASURED:
                tell(f"pair {number + 1} of {pairs}: {case.name}")
                us = {}
                for name, rate in sorted(RATES.items(), reverse=bool(number % 2)):
                    switch(folder / "penstock.yaml", child.pid, rate)
                    us[name] = measure(case, contestant.port, case.connections, [child.pid], seconds)["us"]
                found[case].append(Pair(**us))
        tell("")
    return found


def row(case: Case, pairs: list[Pair]) -> str:
    lines, none = (statistics.median(values) for values in zip(*pairs, strict=True))
    low, middle, high = statistics.quantiles([pair.lines / pair.none for pair in pairs], n=4)
    return f"{case.name:28} {lines:7.1f} us {none:7.1f} us without   ratio {middle:.3f} ({low:.3f} to {high:.3f})"


def main() -> None:
    parser = asking(__doc__)
    parser.add_argument("--pairs", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=1.0, help="of each window")
    arguments = parser.parse_args()
    for case, pairs in run(shlex.split(arguments.penstock), arguments.pairs, arguments.seconds).items():
        print(row(case, pairs))


if __name__ == "__main__":
    main()
