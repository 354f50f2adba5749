"""What a scenario is: worlds to run, windows to compare with the best static limit, and what is read off a run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from math import isinf

from proxy.laboratory.lab import Lab
from proxy.laboratory.measures import Window, attainment, goodput
from tests.benchmarks.scenarios.laws import LADDER
from tests.benchmarks.scenarios.worlds import OURS, World

SEEDS = (1, 2, 3)
Numbers = dict[str, float]


@dataclass(frozen=True, slots=True)
class Best:
    """The best static limit in one window: by the mean over seeds, and what it gives on the seed at hand."""

    seats: float
    goodput: float


@dataclass(frozen=True, slots=True)
class Oracle:
    """A window of one world and the limits between which the sweep looks. `keeps`: the share of requests within both
    targets that a limit must reach to be looked at. `before`: other seats that hold until a second."""

    world: World
    window: Window
    low: float
    high: float
    keeps: float = 0.0
    before: tuple[int, float] | None = None


Found = Mapping[str, Best]  # by the name of the oracle


@dataclass(frozen=True, slots=True)
class Measure:
    """One figure of a scenario. `goal` None: told, not judged. `show`: percent, s, ms, seats, ratio, count."""

    name: str
    words: str
    show: str = "ratio"
    at_least: float | None = None
    at_most: float | None = None

    def reached(self, value: float) -> bool | None:
        """None where there is no threshold."""
        if self.at_least is None and self.at_most is None:
            return None
        return (self.at_least is None or value >= self.at_least - 1e-9) and (
            self.at_most is None or value <= self.at_most + 1e-9
        )

    @property
    def more_is_better(self) -> bool:
        """By its threshold, else of anything but time."""
        if self.at_least is None and self.at_most is None:
            return self.show not in ("s", "ms", "us")
        return self.at_most is None

    def better(self, left: float, right: float) -> bool:
        """Closer to what is wanted: the middle of two bounds, else more or less."""
        if self.at_least is not None and self.at_most is not None:
            middle = (self.at_least + self.at_most) / 2
            return abs(left - middle) < abs(right - middle)
        return left > right if self.more_is_better else left < right

    def worst(self, values: list[float]) -> float:
        """Of several seeds."""
        found = values[0]
        for value in values:
            if self.better(found, value):
                found = value
        return found

    def text(self, value: float) -> str:
        if isinf(value):
            return "never"
        factor, suffix, digits = {
            "percent": (100, " %", 1), "s": (1, " s", 0), "ms": (1000, " ms", 0), "seats": (1, "", 0),
            "ratio": (1, "", 3), "count": (1, "", 0), "us": (1e6, " us", 1),
        }[self.show]  # fmt: skip
        return f"{factor * value:.{digits}f}{suffix}"


@dataclass(frozen=True, slots=True)
class Scenario:
    """`read` takes figures off one run of a named world; `judge` makes the scenario's measures of those of all its
    worlds under one law and seed. Both also get the best static limits found."""

    key: str
    title: str
    text: str
    worlds: Mapping[str, World]
    read: Callable[[str, Lab, Found], Numbers]
    measures: tuple[Measure, ...]
    judge: Callable[[Mapping[str, Numbers], Found], Numbers] | None = None
    oracles: Mapping[str, Oracle] = field(default_factory=dict)
    laws: tuple[str, ...] = (*LADDER, OURS)
    seeds: tuple[int, ...] = SEEDS
    picture: str = ""  # the world whose first seed is drawn
    judged_alone: bool = False  # the other laws are shown without being judged by goals that only a queue can meet

    def result(self, numbers: Mapping[str, Numbers], found: Found) -> Numbers:
        """The measures of one law and seed."""
        if self.judge is not None:
            return self.judge(numbers, found)
        return next(iter(numbers.values()))


def relative(lab: Lab, world: World, window: Window, best: Best) -> Numbers:
    """Goodput over the best static one, and attainment."""
    return {
        "goodput": goodput(lab.requests, world.target, window) / best.goodput,
        "attainment": attainment(lab.requests, world.target, window),
    }


ATTAINMENT = Measure("attainment", "requests within both targets", "percent", at_least=0.95)
