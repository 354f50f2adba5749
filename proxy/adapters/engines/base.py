"""What an engine adapter is: a name, the pages to ask, two parsers of what they answer, and two habits of the engine.

Parsers are pure and never raise: a field that an answer does not tell, or tells as nonsense, stays None.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import fields, replace
from typing import Protocol, TypeVar

from proxy.types import Telemetry

COUNT_MAX = 1 << 53  # beyond it a float no longer counts by one
USAGE_SLACK = 1.05  # engines round: a little over full is full

Number = TypeVar("Number", int, float)


class Engine(Protocol):
    """One kind of inference server. Paths are relative to the upstream's root and are asked in order."""

    name: str
    metrics_paths: tuple[str, ...]  # live load, asked about once a second: the first that answers readably is kept
    info_paths: tuple[str, ...]  # what changes only with a restart
    slow_abort: bool  # goes on generating for seconds after its client has left

    def parse_metrics(self, text: str, at_s: float) -> Telemetry: ...

    def parse_info(self, document: object, at_s: float) -> Telemetry: ...


def count(value: object, factor: object = 1) -> int | None:
    """`value` (times `factor`) as a count, or None. Accepts digits in a string: label values are strings."""
    numbers = []
    for part in (value, factor):
        number = _finite(part)
        if number is None:
            return None
        numbers.append(number)
    product = numbers[0] * numbers[1]
    return int(product) if 0 <= product <= COUNT_MAX else None


def size(value: object, factor: object = 1) -> int | None:
    """As `count`, for capacities: nothing useful has a capacity of zero, so zero means not known (yet)."""
    return count(value, factor) or None


def ratio(value: object) -> float | None:
    number = _finite(value)
    return min(number, 1.0) if number is not None and 0 <= number <= USAGE_SLACK else None


def _finite(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def at(document: object, *path: str | int) -> object:
    """The value at `path` in a JSON document, or None where any part of the way is missing."""
    for step in path:
        if isinstance(step, str) and isinstance(document, dict):
            document = document.get(step)
        elif isinstance(step, int) and isinstance(document, list) and -len(document) <= step < len(document):
            document = document[step]
        else:
            return None
    return document


def items(document: object, *path: str | int) -> Iterator[object]:
    """The members of the list at `path`; none where there is no list."""
    found = at(document, *path)
    if isinstance(found, list):
        yield from found


def summed(values: Iterable[int | None]) -> int | None:
    """Sum of what is known; None when nothing is."""
    known = [value for value in values if value is not None]
    return sum(known) if known else None


def largest(values: Iterable[Number | None]) -> Number | None:
    return max((value for value in values if value is not None), default=None)


def merged(first: Telemetry, *others: Telemetry | None) -> Telemetry:
    """`first`, with each field that it does not tell taken from the next that does."""
    for other in others:
        if other is not None:
            missing = {
                field.name: getattr(other, field.name)
                for field in fields(Telemetry)
                if getattr(first, field.name) in (None, (), "")
            }
            first = replace(first, **missing)
    return first


def tells_nothing(telemetry: Telemetry) -> bool:
    return telemetry == Telemetry(at_s=telemetry.at_s)
