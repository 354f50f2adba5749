"""What a fixed limit would have reached: the same engine and arrivals, in virtual time, first come first served."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from operator import attrgetter
from random import Random
from typing import NamedTuple

from tests.benchmarks.over_http.engine import Asked, Engine, Kind
from tests.benchmarks.over_http.engine import Sequence as Running

STEP = 1.05  # of the sweep
KEPT = 0.95  # of the answers within both targets: what a limit has to keep


class Target(NamedTuple):
    """Seconds per output token after the first, and from the engine's receipt to the first."""

    itl_s: float
    ttft_s: float


class Served(NamedTuple):
    """One answer that came whole."""

    output: int
    ended_s: float
    ttft_s: float
    itl_s: float

    def met(self, target: Target) -> bool:
        return self.itl_s <= target.itl_s and self.ttft_s <= target.ttft_s


def goodput(served: Iterable[Served], target: Target, begin_s: float, end_s: float) -> float:
    """Tokens per second of answers that ended in this time within both targets."""
    good = sum(one.output for one in served if begin_s <= one.ended_s < end_s and one.met(target))
    return good / (end_s - begin_s)


def attainment(served: Iterable[Served], target: Target, begin_s: float, end_s: float) -> float:
    """Share of the answers that ended in this time; 1 where none did."""
    met = [one.met(target) for one in served if begin_s <= one.ended_s < end_s]
    return sum(met) / len(met) if met else 1.0


def result_of(one: Running) -> Served:
    spread_s = (one.ended_s - one.first_s) / max(1, one.made - 1)
    return Served(one.made, one.ended_s, one.first_s - one.came_s, spread_s)


def fixed(
    kind: Kind, asked: Sequence[Asked], limit: int, until_s: float, seed: int, slower: float = 1.0
) -> list[Served]:
    """What is served with so many in flight at most."""
    engine, queue, done = Engine(kind, Random(seed)), deque(asked), list[Served]()
    engine.slower, now = slower, 0.0
    while now < until_s:
        while queue and queue[0].at_s <= now and engine.present < limit:
            one = queue.popleft()
            engine.waiting.append(Running(one.number, one.prompt, one.output, now))
        step_s = engine.begin()
        if not step_s:
            if not queue:
                break
            now = max(now, queue[0].at_s)
            continue
        now += step_s
        done += [result_of(one) for one in engine.finish(now) if one.ended_s]
    return done


class Fixed(NamedTuple):
    """What one fixed limit reached."""

    limit: int
    goodput: float
    attainment: float


def best(
    kind: Kind, asked: Sequence[Asked], target: Target, begin_s: float, end_s: float, about: float, slower: float = 1.0
) -> tuple[Fixed, Fixed]:
    """The limit of the highest goodput in this time, from half to twice `about` in steps of 5 %; and among those that
    keep the target the one of the highest, or the lowest of all where none keeps it."""
    reached: list[Fixed] = []
    for limit in sorted({max(1, round(about / 2 * STEP**step)) for step in range(29)}):
        found = fixed(kind, asked, limit, end_s, 1, slower)
        reached.append(Fixed(limit, goodput(found, target, begin_s, end_s), attainment(found, target, begin_s, end_s)))
    keeping = [one for one in reached if one.attainment >= KEPT] or reached[:1]
    return max(reached, key=attrgetter("goodput")), max(keeping, key=attrgetter("goodput"))
