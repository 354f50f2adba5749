"""Documents into workloads: a mapping as YAML gives it, and recorded arrivals line by line. Errors name the key."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

from proxy.loadtest.workload import APIS, PROCESSES, Arrival, Flow, Lengths, RateStep, TraceEntry, Workload

TOKENS_MAX = 10_000_000
SECONDS_MAX = 30 * 86_400.0
DISTRIBUTIONS = ("fixed", "uniform", "exponential", "lognormal", "values")

Value = TypeVar("Value")


class WorkloadError(ValueError):
    """What is wrong with a workload, in one line that names the key and the remedy."""


class Section:
    """One mapping that is being read; `done` refuses the keys that nobody asked for."""

    def __init__(self, document: object, where: str) -> None:
        if not isinstance(document, Mapping):
            raise WorkloadError(f"{where or 'the workload'}: must be a mapping of keys to values")
        self.document: Mapping[str, Any] = document
        self.where = where
        self.known: set[str] = set()

    def key(self, name: str) -> str:
        return f"{self.where}.{name}" if self.where else name

    def has(self, name: str) -> bool:
        self.known.add(name)
        return self.document.get(name) is not None

    def value(self, name: str) -> Any:
        self.known.add(name)
        return self.document.get(name)

    def number(self, name: str, default: float, low: float, high: float, above: bool = False) -> float:
        if not self.has(name):
            return default
        return number(self.value(name), self.key(name), low, high, above)

    def whole(self, name: str, default: int, low: int, high: int) -> int:
        found = self.number(name, default, low, high)
        if found != int(found):
            raise WorkloadError(f"{self.key(name)}: must be a whole number")
        return int(found)

    def flag(self, name: str, default: bool) -> bool:
        found = self.value(name)
        if found is None or isinstance(found, bool):
            return default if found is None else found
        raise WorkloadError(f"{self.key(name)}: must be true or false")

    def text(self, name: str, default: str = "", choices: tuple[str, ...] = ()) -> str:
        found = self.value(name)
        if found is None:
            return default
        if not isinstance(found, str) or not found.isprintable() or not found.isascii():
            raise WorkloadError(f"{self.key(name)}: must be printable ASCII text")
        if choices and found not in choices:
            raise WorkloadError(f"{self.key(name)}: no {found!r}; choose one of: {', '.join(choices)}")
        return found

    def each(self, name: str, read: Callable[[object, str], Value]) -> tuple[Value, ...]:
        found = self.value(name)
        if found is None:
            return ()
        if not isinstance(found, list):
            raise WorkloadError(f"{self.key(name)}: must be a list")
        return tuple(read(one, f"{self.key(name)}[{index}]") for index, one in enumerate(found))

    def done(self) -> None:
        for name in self.document:
            if name not in self.known:
                known = ", ".join(sorted(self.known))
                raise WorkloadError(f"{self.key(str(name))}: no such key; choose from: {known}")


def number(value: object, where: str, low: float, high: float, above: bool = False) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise WorkloadError(f"{where}: must be a number")
    if not low <= value <= high or (above and value == low):
        raise WorkloadError(f"{where}: must be {'above' if above else 'at least'} {low:g} and at most {high:g}")
    return float(value)


def read_workload(document: object, name: str, trace: tuple[TraceEntry, ...] = ()) -> Workload:
    """A workload from a mapping. Raises WorkloadError."""
    top = Section(document, "")
    arrival = read_arrival(top.value("arrival") if top.has("arrival") else {})
    flows = top.each("flows", read_flow) or (Flow("all"),)
    names = [flow.name for flow in flows]
    if len(set(names)) < len(names):
        raise WorkloadError("flows: two have the same name; give each its own")
    if arrival.process == "trace" and not trace:
        raise WorkloadError("trace: recorded arrivals are missing; give a file of JSON lines")
    top.known.add("trace")
    workload = Workload(
        name=top.text("name", name),
        description=top.text("description"),
        flows=flows,
        arrival=arrival,
        duration_s=top.number("duration_s", 45.0 if not trace else trace_end_s(trace), 0, SECONDS_MAX, above=True),
        warmup_s=top.number("warmup_s", 0.0 if trace else 5.0, 0, SECONDS_MAX),
        requests=top.whole("requests", 0, 0, TOKENS_MAX),
        seed=top.whole("seed", 0, 0, 2**53),
        in_flight_max=top.whole("in_flight_max", 0, 0, 1_000_000),
        timeout_s=top.number("timeout_s", 600.0, 0, SECONDS_MAX, above=True),
        silence_s=top.number("silence_s", 120.0, 0, SECONDS_MAX, above=True),
        trace=trace,
    )
    top.done()
    return workload


def read_arrival(document: object) -> Arrival:
    section = Section(document, "arrival")
    process = section.text("process", "poisson", PROCESSES)
    arrival = Arrival(
        process=process,
        rate=section.number("rate", 1.0, 0, 1e6, above=True),
        cv=section.number("cv", 1.0, 0, 100, above=True),
        steps=section.each("steps", read_step),
        concurrency=section.whole("concurrency", 1, 1, 100_000),
        think_s=section.number("think_s", 0.0, 0, SECONDS_MAX),
    )
    section.done()
    if process == "steps" and not any(step.rate for step in arrival.steps):
        raise WorkloadError("arrival.steps: must name at least one step with a rate above 0")
    return arrival


def read_step(document: object, where: str) -> RateStep:
    section = Section(document, where)
    step = RateStep(section.number("rate", 0.0, 0, 1e6), section.number("duration_s", 1.0, 0, SECONDS_MAX, above=True))
    section.done()
    return step


def read_flow(document: object, where: str) -> Flow:
    section = Section(document, where)
    flow = Flow(
        name=section.text("name", f"flow {where.rpartition('[')[2].rstrip(']')}"),
        share=section.number("share", 1.0, 0, 1e9, above=True),
        api=section.text("api", "chat", APIS),
        stream=section.flag("stream", True),
        prompt_tokens=read_lengths(section, "prompt_tokens", Lengths(mean=200.0)),
        output_tokens=read_lengths(section, "output_tokens", Lengths(mean=100.0)),
        prefix_tokens=section.whole("prefix_tokens", 0, 0, TOKENS_MAX),
        class_name=section.text("class"),
        tenant=section.text("tenant"),
        key_env=section.text("key_env"),
        model=section.text("model"),
        ignore_eos=section.flag("ignore_eos", True),
    )
    section.done()
    return flow


def read_lengths(parent: Section, name: str, default: Lengths) -> Lengths:
    """A number for a fixed length, or a mapping with `distribution`."""
    found, where = parent.value(name), parent.key(name)
    if found is None:
        return default
    if not isinstance(found, Mapping):
        return Lengths(mean=number(found, where, 1, TOKENS_MAX))
    section = Section(found, where)
    kind = section.text("distribution", "lognormal", DISTRIBUTIONS)
    lengths = Lengths(
        distribution=kind,
        mean=section.number("mean", 128.0, 1, TOKENS_MAX),
        cv=section.number("cv", 1.0, 0, 100, above=True),
        minimum=section.whole("min", 1, 1, TOKENS_MAX),
        maximum=section.whole("max", TOKENS_MAX, 1, TOKENS_MAX),
        values=tuple(map(int, section.each("values", lambda one, at: number(one, at, 1, TOKENS_MAX)))),
        weights=section.each("weights", lambda one, at: number(one, at, 0, 1e9)),
    )
    section.done()
    if lengths.minimum > lengths.maximum:
        raise WorkloadError(f"{where}: min exceeds max")
    if kind == "uniform" and not section.has("max"):
        raise WorkloadError(f"{where}.max: missing; a uniform distribution has two ends")
    if kind == "values" and not lengths.values:
        raise WorkloadError(f"{where}.values: missing; list the lengths")
    if lengths.weights and (len(lengths.weights) != len(lengths.values) or not any(lengths.weights)):
        raise WorkloadError(f"{where}.weights: must be one number for each value, not all 0")
    return lengths


def trace_end_s(trace: tuple[TraceEntry, ...]) -> float:
    """Just after the last arrival."""
    return max(entry.at_s for entry in trace) + 1e-6


def read_trace(lines: Iterable[str], name: str, speed: float = 1.0) -> tuple[TraceEntry, ...]:
    """Recorded arrivals, `{"t_s", "tenant", "class", "prompt_tokens", "output_tokens"}` a line, from time 0 on."""
    entries = []
    for line_number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        where = f"{name}:{line_number}"
        try:
            section = Section(json.loads(line), where)
        except (ValueError, RecursionError) as error:
            raise WorkloadError(str(error) if isinstance(error, WorkloadError) else f"{where}: not JSON") from None
        if not section.has("t_s"):
            raise WorkloadError(f"{where}.t_s: missing; every line needs its time of arrival in seconds")
        entries.append(
            TraceEntry(
                at_s=section.number("t_s", 0.0, -SECONDS_MAX, 1e12) / speed,
                tenant=section.text("tenant"),
                class_name=section.text("class"),
                prompt_tokens=section.whole("prompt_tokens", 1, 0, TOKENS_MAX),
                output_tokens=section.whole("output_tokens", 1, 0, TOKENS_MAX),
            )
        )
    if not entries:
        raise WorkloadError(f"{name}: no arrivals in it")
    first_s = min(entry.at_s for entry in entries)
    shifted = (
        TraceEntry(one.at_s - first_s, one.tenant, one.class_name, one.prompt_tokens, one.output_tokens)
        for one in entries
    )
    return tuple(sorted(shifted, key=lambda one: one.at_s))
