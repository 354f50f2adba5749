"""Scenarios of engines drawn at random, which nothing was tuned on: started cold, and made slower."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Mapping
from itertools import count, islice
from math import exp, log
from typing import NamedTuple

from proxy.admission.limits import Target
from proxy.laboratory.lab import Lab
from proxy.laboratory.measures import goodput, mean, quantile, settled_s, within
from proxy.laboratory.workload import Stream
from proxy.simulator.profiles import EngineProfile, StepTime
from tests.benchmarks.scenarios.scenario import Found, Measure, Numbers, Oracle, Scenario, relative
from tests.benchmarks.scenarios.worlds import OURS, World

STRANGERS = 12
BASES = (1.5, 3.5)  # the target, in steps of an engine with nothing in it
FACTOR, SLOWER_S, END_S = 1.5, 60.0, 125.0
LAWS = ("fixed", "seed", "aimd", "gradient2", "dynamic", OURS)


def between(rng: random.Random, low: float, high: float) -> float:
    """Uniform in the logarithm."""
    return exp(rng.uniform(log(low), log(high)))


class Stranger(NamedTuple):
    """An engine, lengths and a target; and what one more seat adds to a step."""

    world: World
    slope_s: float

    def seats(self, slower: float = 1.0) -> float:
        """Roughly the highest limit within the target."""
        return (self.world.target.itl_s / slower - self.world.profile.step_time.base_s) / self.slope_s


def stranger(
    number: int, until_s: float = 110.0, bases: tuple[float, float] = BASES, slow: tuple[tuple[float, float], ...] = ()
) -> Stranger:
    """Drawn anew for each number."""
    rng = random.Random(f"stranger {number}")
    ranges = ((6e-3, 40e-3), (10e-6, 300e-6), (0.01e-6, 0.3e-6), (10e-6, 200e-6))
    step = StepTime(*(between(rng, low, high) for low, high in ranges))
    prompt, output, variation = between(rng, 100, 2000), between(rng, 80, 600), rng.uniform(0.3, 1.2)
    held = prompt + output * (1 + variation**2) / 2
    slope_s = step.sequence_s + step.kv_token_s * held + step.prefill_token_s * prompt / output
    itl_s = step.base_s * rng.uniform(*bases)
    profile = EngineProfile(
        f"stranger {number}", "m", step, 4_000_000, 131_072, 2048, rng.choice((2048, 4096, 8192)),
        noise=rng.uniform(0.02, 0.2),
    )  # fmt: skip
    rate = 1.5 * (itl_s - step.base_s) / slope_s / (itl_s * output)
    streams = (Stream(rate, 0.0, until_s, prompt_mean=prompt, output_mean=output, variation=variation),)
    return Stranger(World(streams, until_s, profile, Target(itl_s=itl_s, ttft_s=1.0), slow), slope_s)


def oracles(
    name: str, world: World, window: tuple[float, float], seats: float, before: tuple[int, float] | None = None
) -> dict[str, Oracle]:
    """The best limit of an engine, and the best of those that keep its targets."""
    return {
        name: Oracle(world, window, max(1.0, 0.6 * seats), 1.5 * seats + 3, before=before),
        name + KEEPING: Oracle(world, window, max(1.0, 0.3 * seats), 1.2 * seats + 3, 0.95, before),
    }


def merged(parts: Iterable[dict[str, Oracle]]) -> dict[str, Oracle]:
    return {name: oracle for part in parts for name, oracle in part.items()}


def compared(lab: Lab, world: World, window: tuple[float, float], name: str, found: Found) -> Numbers:
    """Beside both of them."""
    keeping = goodput(lab.requests, world.target, window) / found[name + KEEPING].goodput
    return {**relative(lab, world, window, found[name]), "keeping": keeping}


def shares(numbers: Mapping[str, Numbers]) -> Numbers:
    """Of all engines."""
    goodputs = [row["goodput"] for row in numbers.values()]
    return {
        "goodput": min(goodputs),
        "median": quantile(goodputs, 0.5),
        "keeping": min(row["keeping"] for row in numbers.values()),
        "attainment": min(row["attainment"] for row in numbers.values()),
    }


SHARES = (
    Measure("goodput", "goodput over the best static, worst engine", at_least=0.95),
    Measure("median", "goodput over the best static, median engine", at_least=0.97),
    Measure("keeping", "goodput over the best static that keeps 95 % within both targets, worst engine"),
    Measure("attainment", "requests within both targets, worst engine", "percent", at_least=0.95),
)
KEEPING = ", targets kept"

# -- V: started cold

COLD = {f"{number:02d}": stranger(number) for number in range(1, STRANGERS + 1)}
AFTER = (50.0, 110.0)


def read_stranger(name: str, lab: Lab, found: Found) -> Numbers:
    level = mean(one.in_flight for one in within(lab.moments, AFTER))
    return {
        **compared(lab, COLD[name].world, AFTER, name, found),
        "settled": settled_s(lab.moments, level, 0.15, (0.0, 110.0), span_s=40.0),
    }


def judge_strangers(numbers: Mapping[str, Numbers], _: Found) -> Numbers:
    return {
        **shares(numbers),
        "settled": max(row["settled"] for row in numbers.values()),
        "typical": quantile((row["settled"] for row in numbers.values()), 0.5),
    }


V = Scenario(
    "V",
    "twelve engines, mixes and targets drawn at random",
    "Step times, lengths, their variation, chunk size, noise and target are drawn anew for each; nothing was tuned on "
    "them. Settled: within 15 % of its own level from second 50 on.",
    {name: one.world for name, one in COLD.items()},
    read_stranger,
    (
        *SHARES,
        Measure("settled", "settled after, worst engine", "s"),
        Measure("typical", "settled after, median engine", "s", at_most=15.0),
    ),
    judge_strangers,
    merged(oracles(name, one.world, AFTER, one.seats()) for name, one in COLD.items()),
    laws=LAWS,
    seeds=(1,),
)

# -- W: made slower

SEATS_MIN = 12.0  # fewer end too few requests in the window to be told apart
ANSWER_MAX_S = 15.0  # what runs has to end before fewer run
USUAL = 0.85  # of the seats within the target: about the best limit of most engines


def slower() -> Iterator[tuple[str, Stranger]]:
    """All that are drawn, but for those that nobody could do justice to within the time."""
    for number in count(STRANGERS + 1):
        one = stranger(number, END_S, (2.0, 3.5), ((SLOWER_S, FACTOR),))
        answer_s = one.world.target.itl_s * one.world.streams[0].output_mean
        if one.seats(FACTOR) >= SEATS_MIN and answer_s <= ANSWER_MAX_S:
            yield f"{number:02d}", one


def informed(one: Stranger) -> tuple[int, float]:
    """What runs until the engine becomes slower, under the limits that are compared with."""
    return round(USUAL * one.seats()), SLOWER_S


SLOWER = dict(islice(slower(), STRANGERS))
SLOW = (80.0, END_S)


def read_slower(name: str, lab: Lab, found: Found) -> Numbers:
    near = [
        settled_s(lab.moments, found[which].seats, 0.15, (SLOWER_S, END_S), span_s=40.0)
        for which in (name, name + KEEPING)
    ]
    return {**compared(lab, SLOWER[name].world, SLOW, name, found), "settled": min(near)}


def judge_slower(numbers: Mapping[str, Numbers], _: Found) -> Numbers:
    settled = [row["settled"] for row in numbers.values()]
    return {**shares(numbers), "soon": mean(one <= 10.0 for one in settled), "typical": quantile(settled, 0.5)}


W = Scenario(
    "W",
    "twelve more engines drawn at random become slower",
    "From second 60 on every step takes 1.5 times as long. Targets are at least twice the time of an empty step before "
    "that and leave the slow engine a dozen seats or more; answers take at most 15 s, since what runs has to end "
    "before fewer run. The best static limits are informed: another one, near the best, holds until second 60. "
    "Settled: within 15 % of the best of them, or of the best that keeps 95 % within both targets. Goodput and "
    "attainment are those from second 80 on.",
    {name: one.world for name, one in SLOWER.items()},
    read_slower,
    (
        *SHARES,
        Measure("soon", "engines settled within 10 s", "percent"),
        Measure("typical", "settled after, median engine", "s", at_most=10.0),
    ),
    judge_slower,
    merged(oracles(name, one.world, SLOW, one.seats(FACTOR), informed(one)) for name, one in SLOWER.items()),
    laws=LAWS,
    seeds=(1,),
)

STRANGE = (V, W)
