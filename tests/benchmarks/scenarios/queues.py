"""Scenarios of the queue: tenants, priorities, starvation, odd clients. The law is ours."""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import replace
from itertools import accumulate

from proxy.admission.queue import ClassConfig, TenantConfig
from proxy.laboratory.bench import Request
from proxy.laboratory.lab import Lab
from proxy.laboratory.measures import (
    Window,
    jain,
    mean,
    quantile,
    served,
    within,
)
from proxy.laboratory.workload import Arrival, Stream
from tests.benchmarks.scenarios.loads import CLASSES, HIGH, LOW, NORMAL
from tests.benchmarks.scenarios.scenario import Found, Measure, Numbers, Scenario
from tests.benchmarks.scenarios.worlds import OURS, ROOMY, World

LIKE = Arrival(0.0, 1, 1)


def work(request: Request) -> float:
    """Service in the unit of the virtual token counter: a token in, two tokens out."""
    return request.arrival.prompt_tokens + 2.0 * request.arrival.output_tokens


def ttft(request: Request) -> float:
    """As the client sees it, our queue included."""
    return request.wait_s + request.engine_ttft_s


# -- O: tenants

EQUAL, MANY, WEIGHTED, ALONE = "two", "aggressor", "weights", "alone"
NAMES = [f"t{number:02d}" for number in range(26)]
FAIR = {
    EQUAL: World((Stream(20.0, 0.0, 150.0, tenant="a"), Stream(60.0, 0.0, 150.0, tenant="b")), 150.0),
    MANY: World(
        (*(Stream(1.8, 0.0, 150.0, tenant=name) for name in NAMES), Stream(90.0, 0.0, 150.0, tenant="z")), 150.0
    ),
    WEIGHTED: World(
        tuple(Stream(30.0, 0.0, 150.0, tenant=f"w{weight}") for weight in (1, 2, 3, 4)), 150.0,
        tenants=tuple(TenantConfig(f"w{weight}", float(weight)) for weight in (1, 2, 3, 4)),
    ),
    ALONE: World(
        (Stream(1.0, 0.0, 150.0, tenant="v"), Stream(40.0, 0.0, 150.0, tenant="z")), 150.0
    ),
    "victim alone": World((Stream(1.0, 0.0, 150.0, tenant="v"),), 150.0),
}  # fmt: skip


def service(lab: Lab, window: Window) -> dict[str, float]:
    """Weighted service by tenant, counted when it was dispatched."""
    total: dict[str, float] = defaultdict(float)
    for one in lab.requests:
        if one.ticket.upstream and window[0] <= one.ticket.dispatched_s < window[1]:
            total[one.arrival.tenant] += work(one)
    return total


def read_fair(name: str, lab: Lab, _: Found) -> Numbers:
    if name == WEIGHTED:
        got = service(lab, (30.0, 150.0))
        whole = sum(got.values())
        return {"error": max(abs(got[f"w{weight}"] / whole / (weight / 10) - 1) for weight in (1, 2, 3, 4))}
    if name in (ALONE, "victim alone"):
        return {
            "ttft": quantile(
                (ttft(one) for one in served(lab.requests, (30.0, 150.0)) if one.arrival.tenant == "v"), 0.95
            )
        }
    windows = [(30.0 * number, 30.0 * number + 30.0) for number in range(2, 5)]
    parts = [[value for _, value in sorted(service(lab, window).items())] for window in windows]
    return {"jain": min(map(jain, parts)), "gap": gap(lab) / bound(lab)}


def gap(lab: Lab) -> float:
    """Largest difference of service between two backlogged tenants since second 30."""
    got: dict[str, float] = defaultdict(float)
    widest = 0.0
    for one in sorted((one for one in lab.requests if one.ticket.dispatched_s >= 30.0), key=dispatched):
        got[one.arrival.tenant] += work(one)
        widest = max(widest, max(got.values()) - min(got.values()))
    return widest


def bound(lab: Lab) -> float:
    """2 max(w_in L_in, w_out M): the virtual token counter's, M the tokens resident in the batch."""
    longest = max(one.arrival.prompt_tokens for one in lab.requests)
    engine = lab.benches["engine"].engine
    return 2.0 * max(float(longest), 2.0 * engine.kv_usage * engine.profile.kv_tokens)


def dispatched(request: Request) -> float:
    return request.ticket.dispatched_s


def judge_fair(numbers: Mapping[str, Numbers], _: Found) -> Numbers:
    return {
        "two": numbers[EQUAL]["jain"],
        "many": numbers[MANY]["jain"],
        "gap": max(numbers[EQUAL]["gap"], numbers[MANY]["gap"]),
        "error": numbers[WEIGHTED]["error"],
        "victim": numbers[ALONE]["ttft"],
        "idle": numbers["victim alone"]["ttft"],
    }


O = Scenario(  # noqa: E741 (its name in the catalogue)
    "O",
    "tenants share by weight, whatever they send",
    "Two tenants, one sending three times as much; 26 tenants and an aggressor that sends fifty times as much as "
    "each; weights 1 to 4; one that stays below its share beside an aggressor. Service is a prompt token or half an "
    "output token, counted at dispatch.",
    FAIR,
    read_fair,
    (
        Measure("two", "Jain index in every 30 s, two tenants", at_least=0.98),
        Measure("many", "Jain index in every 30 s, 27 tenants", at_least=0.98),
        Measure("gap", "largest gap of service over the bound of virtual token counters", at_most=1.0),
        Measure("error", "share off the weight", "percent", at_most=0.03),
        Measure("victim", "p95 TTFT of a modest tenant beside an aggressor, queue included", "ms"),
        Measure("idle", "the same on an idle engine", "ms"),
    ),
    judge_fair,
    laws=(OURS,),
)

# -- P: priorities


def classes_at(high: float, normal: float, low: float) -> World:
    rates = ((HIGH, high), (NORMAL, normal), (LOW, low))
    return World(tuple(Stream(rate, 0.0, 200.0, rank) for rank, rate in rates if rate), 200.0, classes=CLASSES)


PRIORITIES = {"all": classes_at(4.0, 14.0, 8.0), "high alone": classes_at(4.0, 0.0, 0.0)}


def read_priorities(_: str, lab: Lab, __: Found) -> Numbers:
    window = (60.0, 200.0)
    ended = [served(lab.requests, window, rank) for rank in range(3)]
    waits = [quantile((one.wait_s for one in part), 0.95) for part in ended]
    cost = [
        sum(one.ticket.cost for one in lab.requests if one.arrival.class_index == rank and dispatched(one) >= 60.0)
        for rank in range(3)
    ]
    return {
        "wait": waits[HIGH] / waits[LOW] if waits[LOW] else 0.0,
        "ttft": quantile(map(ttft, ended[HIGH]), 0.95),
        "engine": quantile((one.engine_ttft_s for one in ended[HIGH]), 0.95),
        "share": cost[LOW] / max(sum(cost), 1e-9),
    }


def judge_priorities(numbers: Mapping[str, Numbers], _: Found) -> Numbers:
    busy, alone = numbers["all"], numbers["high alone"]
    return {
        "wait": busy["wait"],
        "share": busy["share"],
        "own": busy["ttft"] / busy["engine"],
        "isolated": busy["ttft"] / alone["ttft"],
        "ms": busy["ttft"],
    }


P = Scenario(
    "P",
    "three classes at 1.5 times the load",
    "High has no floor and needs none; normal is guaranteed 10 % of the service, low 5 %, and both send more than "
    "that. The wait that we cause is TTFT as the client sees it over TTFT from dispatch.",
    PRIORITIES,
    read_priorities,
    (
        Measure("wait", "p95 wait of high over that of low", at_most=0.1),
        Measure("share", "share of service of low, floor 5 %", "percent", at_least=0.04, at_most=0.06),
        Measure("own", "p95 TTFT of high over its TTFT from dispatch", at_most=1.1),
        Measure("isolated", "p95 TTFT of high over that on an otherwise idle engine", at_most=1.1),
        Measure("ms", "p95 TTFT of high, queue included", "ms"),
    ),
    judge_priorities,
    laws=(OURS,),
)

# -- Q: nobody starves

FLOOD = World(
    (
        Stream(40.0, 0.0, 600.0, HIGH),
        Stream(0.8, 0.0, 600.0, NORMAL),
        Stream(0.3, 0.0, 600.0, LOW),
        Stream(0.02, 0.0, 600.0, LOW, prompt_mean=12_000.0, output_mean=400.0, variation=0.2),
    ),
    600.0,
    replace(ROOMY, kv_tokens=120_000),
    classes=(
        ClassConfig("high", 0.0, 1.0, 200, 60.0),
        ClassConfig("normal", 0.10, 0.93, 1000, 600.0),
        ClassConfig("low", 0.05, 0.85, 1000, 600.0),
    ),
)  # fmt: skip


def starvation(lab: Lab, rank: int, floor: float) -> list[float]:
    """For each request of a class: service that passed while it waited, over the most that may.

    A class c is served when sigma V - S > q, so from the arrival of a request behind others of cost A until its
    dispatch at most (q + cost_max + A + own) / sigma of service goes by; requests on one slot each come on top.
    Service is the engine's own time at the mean batch, whatever the dispatcher takes it for.
    """
    ran = sorted((one for one in lab.requests if one.ticket.upstream), key=dispatched)
    times = [dispatched(one) for one in ran]
    running = mean(one.in_flight for one in lab.moments)
    cost = {one.ticket.id: engine_s(one.arrival, running) for one in ran}
    sums = [0.0, *accumulate(cost[one.ticket.id] for one in ran)]
    own = [one for one in ran if one.arrival.class_index == rank]
    quantum = mean(cost[one.ticket.id] for one in own)
    most = max(cost.values())
    shares = []
    for one in own:
        at_s = one.arrival.at_s
        ahead = sum(cost[other.ticket.id] for other in own if other.arrival.at_s < at_s < dispatched(other))
        passed = sums[bisect_left(times, dispatched(one))] - sums[bisect_left(times, at_s)]
        shares.append(passed / ((2 * quantum + most + ahead + cost[one.ticket.id]) / floor))
    return shares


def engine_s(arrival: Arrival, running: float) -> float:
    """Engine time of a request among so many: its prompt, and its share of the steps that its output takes."""
    step, output = FLOOD.profile.step_time, arrival.output_tokens
    held = arrival.prompt_tokens + output / 2
    return step.prefill_token_s * arrival.prompt_tokens + output * (
        step.base_s / running + step.sequence_s + step.kv_token_s * held
    )


def read_flood(_: str, lab: Lab, __: Found) -> Numbers:
    shares = [starvation(lab, rank, FLOOD.classes[rank].floor) for rank in (NORMAL, LOW)]
    everyone = [one for one in lab.requests if one.arrival.class_index != HIGH]
    big = [one for one in lab.requests if one.arrival.prompt_tokens > 8000 and one.ticket.upstream]
    return {
        "violations": float(sum(share > 1 for part in shares for share in part)),
        "most": max((share for part in shares for share in part), default=0.0),
        "wait": max((one.wait_s for one in everyone if one.ticket.upstream), default=0.0),
        "unserved": float(sum(one.arrival.at_s < 500.0 and not one.ticket.upstream for one in everyone)),
        "big": max((one.wait_s for one in big), default=0.0),
    }


Q = Scenario(
    "Q",
    "ten minutes of flood from above",
    "The high class alone sends more than twice what fits; normal and low send less than their floors, some of it in "
    "prompts of 12,000 tokens on an engine whose memory is full. The bound is that of deficit scheduling: while a "
    "request waits, at most (q + cost_max + what is ahead) / floor of service, in the engine's own time, may go by.",
    {"flood": FLOOD},
    read_flood,
    (
        Measure("violations", "requests that waited beyond the bound", "count", at_most=0.0),
        Measure("most", "longest wait over its bound", at_most=1.0),
        Measure("wait", "longest wait of any request of normal or low", "s"),
        Measure("big", "longest wait of a prompt above 8,000 tokens", "s"),
        Measure("unserved", "requests of normal and low never served", "count", at_most=0.0),
    ),
    laws=(OURS,),
)

# -- R: idle tenants, cancelled requests, ten thousand tenants

BURST = (120.0, 180.0)
ODD = {
    "idle": World(
        (
            Stream(20.0, 0.0, 200.0, tenant="a"),
            Stream(20.0, 0.0, 200.0, tenant="b"),
            Stream(60.0, BURST[0], BURST[1], tenant="c"),
        ),
        200.0,
    ),
    "cancel": World(
        (
            Stream(20.0, 0.0, 120.0, tenant="a"),
            Stream(60.0, 40.0, 60.0, tenant="b", like=replace(LIKE, patience_s=0.7)),
            Stream(10.0, 0.0, 120.0, tenant="c", like=replace(LIKE, patience_s=6.0)),
        ),
        120.0,
    ),
    "many": World(tuple(Stream(0.004, 0.0, 100.0, tenant=f"t{number}") for number in range(10_000)), 100.0),
}


def read_odd(name: str, lab: Lab, _: Found) -> Numbers:
    snapshot = lab.dispatcher.snapshot(lab.now)
    numbers = {"leaked": float(snapshot.leaked)}
    if name == "idle":
        got = service(lab, BURST)
        numbers["share"] = got["c"] / (sum(got.values()) / 3)
    waiting = [one for one in within(lab.moments, (30.0, 100.0)) if one.queued]
    numbers["idle"] = mean(one.in_flight < 0.95 * one.limit - 1 for one in waiting)
    return numbers


def judge_odd(numbers: Mapping[str, Numbers], _: Found) -> Numbers:
    return {
        "share": numbers["idle"]["share"],
        "leaked": sum(row["leaked"] for row in numbers.values()),
        "idle": numbers["idle"]["idle"],
    }


R = Scenario(
    "R",
    "a tenant that was idle, a storm of cancelled requests, ten thousand tenants",
    "A tenant silent for two minutes comes with three times the load of the two others; 1,200 requests are cancelled "
    "after 0.7 s, queued or running; 10,000 tenants send one request each now and then.",
    ODD,
    read_odd,
    (
        Measure("share", "service of the burst-idle tenant over its fair share", at_most=1.05),
        Measure("leaked", "seats leaked", "count", at_most=0.0),
        Measure(
            "idle", "share of moments with one seat in twenty free beside a waiting request", "percent", at_most=0.01
        ),
    ),
    judge_odd,
    laws=(OURS,),
)

QUEUES = (O, P, Q, R)
