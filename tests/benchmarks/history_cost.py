"""Does cost grow with what was served? python -m tests.benchmarks.history_cost --penstock .venv/bin/penstock

Windows of one process with nginx in between, until so many requests have been counted. Printed are the slopes over the
requests served, by least squares and for the whole run: of CPU time per request over nginx's of the same minute, whose
drift is the machine's, and of resident memory. The first windows stand apart: the limit finds its place, caches fill.
Needs nginx (Debian: nginx-light) and two cores, the first of which upstream and load share.
"""

from __future__ import annotations

import shlex
import statistics
import sys
import tempfile
from contextlib import ExitStack
from math import sqrt
from pathlib import Path
from typing import NamedTuple

from tests.benchmarks.data_path.__main__ import FIND_LIMIT_S, MANY, asking, await_port, process, start, tell
from tests.benchmarks.data_path.cases import CASES
from tests.benchmarks.data_path.contestants import contestants, free_port

MEASURED = CASES[1]
YARDSTICK_S = 1.5
APART = 2  # windows


class Window(NamedTuple):
    """`served` before it and within, CPU time per request in microseconds, resident bytes after it."""

    served: int
    us: float
    nginx_us: float
    resident: int


class Slope(NamedTuple):
    """Change over the whole run as a share of the mean, and its standard error."""

    change: float
    error: float

    def __str__(self) -> str:
        return f"{100 * self.change:+.1f} % (standard error {100 * self.error:.1f})"


def slope(at: list[float], values: list[float]) -> Slope:
    """Of three points at least, by least squares."""
    found = statistics.linear_regression(at, values)
    rest = sum((y - found.intercept - found.slope * x) ** 2 for x, y in zip(at, values, strict=True))
    middle = statistics.mean(at)
    spread = sum((x - middle) ** 2 for x in at)
    span, mean = at[-1] - at[0], statistics.mean(values)
    return Slope(found.slope * span / mean, sqrt(rest / (len(at) - 2) / spread) * span / mean)


def resident(pid: int) -> int:
    """Bytes, as the kernel counts them."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    return 1024 * int(status.partition("VmRSS:")[2].split()[0])


def run(penstock: list[str], requests: int, seconds: float) -> list[Window]:
    upstream, found, served = free_port(), list[Window](), 0
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        folder.chmod(0o755)
        engine = (sys.executable, "-m", "tests.benchmarks.data_path.upstream", str(upstream))
        stack.enter_context(process(0, *engine, log=folder / "upstream.log"))
        await_port(upstream)
        proxies = start(stack, contestants(penstock, [], folder, upstream), folder)
        proxies["penstock"].turn(MANY, FIND_LIMIT_S)
        while served < requests or len(found) < APART + 3:
            tell(f"{served} of {requests} requests")
            yardstick = proxies["nginx"].turn(MEASURED, YARDSTICK_S)["us"]
            turn = proxies["penstock"].turn(MEASURED, seconds)
            served += turn["requests"]
            found.append(Window(served, turn["us"], yardstick, resident(proxies["penstock"].pid)))
        tell("")
    return found


def rows(windows: list[Window]) -> list[str]:
    """A line per window, and the slopes of all but the first ones."""
    told = [
        f"{one.served:9} requests {one.us:7.1f} us  {one.us / one.nginx_us:5.2f} x nginx  {one.resident / 1e6:6.1f} MB"
        for one in windows
    ]
    later = windows[APART:]
    at = [float(one.served) for one in later]
    cpu, memory = (slope(at, [one.us / one.nginx_us for one in later]), slope(at, [one.resident for one in later]))
    return [*told, f"slope of CPU time per request: {cpu}", f"slope of resident memory: {memory}"]


def main() -> None:
    parser = asking(__doc__)
    parser.add_argument("--requests", type=int, default=500_000)
    parser.add_argument("--seconds", type=float, default=5.0, help="of each window")
    arguments = parser.parse_args()
    print(*rows(run(shlex.split(arguments.penstock), arguments.requests, arguments.seconds)), sep="\n")


if __name__ == "__main__":
    main()
