"""Scenarios of load: several proxies on one engine, and more load than it can take."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from proxy.admission.queue import ClassConfig
from proxy.laboratory.lab import Lab
from proxy.laboratory.measures import Window, attainment, goodput, jain, mean, within
from proxy.laboratory.workload import Arrival, Stream
from proxy.types import Outcome
from tests.benchmarks.scenarios.scenario import Found, Measure, Numbers, Oracle, Scenario
from tests.benchmarks.scenarios.worlds import OURS, TARGET, World

LIKE = Arrival(0.0, 1, 1)
HIGH, NORMAL, LOW = range(3)
CLASSES = (
    ClassConfig("high", 0.0, 1.0, 1000, 60.0),
    ClassConfig("normal", 0.10, 0.93, 1000, 60.0),
    ClassConfig("low", 0.05, 0.85, 1000, 300.0),
)
CAPACITY = 17.0  # requests of 512 + 256 tokens per second within 40 ms per token

# -- I: three proxies on one engine

LEAVES, RETURNS, END = 140.0, 200.0, 270.0


def proxies(shared_by: int | None) -> World:
    """From limits of 100, 20 and 6; the second leaves at 140 s and is back at 200 s."""
    like = [replace(LIKE, proxy=proxy) for proxy in range(3)]
    streams = (
        Stream(12.0, 0.0, END, like=like[0]),
        Stream(12.0, 0.0, LEAVES, like=like[1]),
        Stream(12.0, RETURNS, END, like=like[1]),
        Stream(12.0, 0.0, END, like=like[2]),
    )
    short = (ClassConfig("only", queue_max=120, queue_timeout_s=60.0),)
    return World(streams, END, classes=short, proxies=3, shared_by=shared_by, initials=(100, 20, 6))


SHARED = {"known": proxies(3), "unknown": proxies(1)}


def shares(lab: Lab, window: Window, who: Iterable[int] = range(3)) -> float:
    """Jain's index of mean in flight."""
    return jain(mean(one.in_flight for one in within(lab.moments, window, proxy)) for proxy in who)


def read_shared(_: str, lab: Lab, found: Found) -> Numbers:
    total = mean(one.running for one in within(lab.moments, (80.0, LEAVES)))
    return {
        "jain": shares(lab, (60.0, LEAVES)),
        "left": shares(lab, (165.0, RETURNS), (0, 2)),
        "joined": shares(lab, (245.0, END)),
        "attainment": attainment(lab.requests, TARGET, (30.0, END)),
        "total": total / found["steady"].seats,
        "goodput": goodput(lab.requests, TARGET, (60.0, LEAVES)) / found["steady"].goodput,
    }


def judge_shared(numbers: Mapping[str, Numbers], _: Found) -> Numbers:
    return {f"{key} {name}": value for name, row in numbers.items() for key, value in row.items()}


def shared_measures(name: str) -> tuple[Measure, ...]:
    told = f", number of proxies {name}"
    return (
        Measure(f"jain {name}", f"Jain index from second 60 on{told}", at_least=0.95),
        Measure(f"left {name}", f"Jain index of those left, from 25 s on{told}", at_least=0.95),
        Measure(f"joined {name}", f"Jain index from 45 s after one joined{told}", at_least=0.95),
        Measure(f"attainment {name}", f"requests within both targets{told}", "percent", at_least=0.95),
        Measure(f"total {name}", f"in the engine over the best static{told}", at_least=0.95, at_most=1.05),
        Measure(f"goodput {name}", f"goodput over the best static{told}", at_least=0.95),
    )


I = Scenario(  # noqa: E741 (its name in the catalogue)
    "I",
    "three proxies share one engine",
    "They start from limits of 100, 20 and 6 and cannot talk to one another; one leaves at second 140 and is back at "
    "second 200. Told how many they are, or not told.",
    SHARED,
    read_shared,
    (*shared_measures("known"), *shared_measures("unknown")),
    judge_shared,
    {"steady": Oracle(World((Stream(36.0, 0.0, LEAVES),), LEAVES), (60.0, LEAVES), 110.0, 190.0)},
    laws=(OURS,),
)

# -- K: more and more load

LOADS = (0.5, 1.0, 1.5, 2.0, 3.0, 4.0)


def loaded(load: float) -> World:
    rates = {HIGH: 0.2, NORMAL: 0.3, LOW: 0.5}
    streams = (Stream(CAPACITY * load * share, 0.0, 120.0, rank) for rank, share in rates.items())
    return World(tuple(streams), 120.0, classes=CLASSES)


def read_loaded(_: str, lab: Lab, __: Found) -> Numbers:
    ended = [[one for one in lab.requests if one.arrival.class_index == rank and one.outcome] for rank in range(3)]
    done = [mean(one.outcome is Outcome.SUCCESS for one in part) for part in ended]
    return {
        "goodput": goodput(lab.requests, TARGET, (40.0, 120.0)),
        "ordered": float(done[HIGH] >= done[NORMAL] - 0.01 and done[NORMAL] >= done[LOW] - 0.01),
        "high": done[HIGH],
    }


def judge_loaded(numbers: Mapping[str, Numbers], _: Found) -> Numbers:
    peak = max(row["goodput"] for row in numbers.values())
    return {
        "goodput": numbers["4x"]["goodput"] / peak,
        "ordered": min(row["ordered"] for row in numbers.values()),
        "high": numbers["4x"]["high"],
    }


K = Scenario(
    "K",
    "half to four times the load",
    "Three classes, a fifth of the requests high, half of them low.",
    {f"{load:g}x": loaded(load) for load in LOADS},
    read_loaded,
    (
        Measure("goodput", "goodput at four times the load over its peak", at_least=0.95),
        Measure("ordered", "a higher class is never served less", "count", at_least=1.0),
        Measure("high", "requests of the high class served at four times the load", "percent"),
    ),
    judge_loaded,
    laws=("none", "fixed", "seed", "aimd", "dynamic", "saturation", OURS),
)

LOADS_AND_PROXIES = (I, K)
