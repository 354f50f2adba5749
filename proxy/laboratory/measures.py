"""What a run is judged by. Every figure says what it counts; offered work that was not served counts against goodput.

goodput     output tokens per second of requests that ended in the window within both targets: TPOT <= T and, from
            dispatch, TTFT <= its target (our own queue is not the limit's doing)
attainment  share of the requests that ended with success in the window and met both
settled     first moment from which in-flight stays within a band of a level for 80 % of the next span
Jain        (sum x)^2 / (n sum x^2), 1 for equal shares (Jain, Chiu and Hawe 1984)
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import inf

from proxy.admission.limits import Target
from proxy.laboratory.bench import Request
from proxy.laboratory.lab import Moment
from proxy.types import Outcome, Work

Window = tuple[float, float]
ALWAYS: Window = (0.0, inf)


def quantile(values: Iterable[float], share: float) -> float:
    """0 without values."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0


def mean(values: Iterable[float]) -> float:
    """0 without values."""
    values = list(values)
    return sum(values) / len(values) if values else 0.0


def jain(values: Iterable[float]) -> float:
    """1 without values, and where all are 0."""
    values = list(values)
    squares = sum(value * value for value in values)
    return sum(values) ** 2 / (len(values) * squares) if squares else 1.0


def served(requests: Iterable[Request], window: Window = ALWAYS, class_index: int | None = None) -> list[Request]:
    """Successes that ended in the window, of one class or of all."""
    begin_s, end_s = window
    return [
        one
        for one in requests
        if one.outcome is Outcome.SUCCESS
        and begin_s <= one.ended_s < end_s
        and class_index in (None, one.arrival.class_index)
    ]


def arrived(requests: Iterable[Request], window: Window = ALWAYS, class_index: int | None = None) -> list[Request]:
    """All that arrived in the window, of one class or of all."""
    begin_s, end_s = window
    return [
        one
        for one in requests
        if begin_s <= one.arrival.at_s < end_s and class_index in (None, one.arrival.class_index)
    ]


def met(request: Request, target: Target) -> bool:
    """Both targets; work without tokens has one, its duration."""
    if request.arrival.work is not Work.GENERATE:
        return request.ended_s - request.ticket.dispatched_s <= target.ttft_s
    return request.itl_s <= target.itl_s and request.engine_ttft_s <= target.ttft_s


def goodput(requests: Iterable[Request], target: Target, window: Window) -> float:
    """Tokens per second; a request without output tokens counts its prompt."""
    good = [one.arrival for one in served(requests, window) if met(one, target)]
    return sum(one.output_tokens or one.prompt_tokens for one in good) / (window[1] - window[0])


def attainment(requests: Iterable[Request], target: Target, window: Window = ALWAYS) -> float:
    """1 where nothing was served."""
    return mean(met(one, target) for one in served(requests, window)) if served(requests, window) else 1.0


def within(moments: Iterable[Moment], window: Window, proxy: int = 0) -> list[Moment]:
    """The moments of one proxy in a window."""
    return [one for one in moments if one.proxy == proxy and window[0] <= one.at_s < window[1]]


def settled_s(moments: Sequence[Moment], level: float, band: float, window: Window, span_s: float = 60.0) -> float:
    """Seconds from the window's start; infinite if that never happens within it."""
    seen = [(one.at_s, one.in_flight) for one in within(moments, window)]
    return near_from_s(seen, level, band, span_s) - window[0]


def near_from_s(seen: Sequence[tuple[float, float]], level: float, band: float, span_s: float) -> float:
    """The time in `seen`, times with values, from which these stay near the level; infinite without one."""
    for index, (begin_s, _) in enumerate(seen):
        near = [abs(value / level - 1) <= band for at_s, value in seen[index:] if at_s < begin_s + span_s]
        if near[0] and sum(near) >= 0.8 * len(near):
            return begin_s
    return inf


def variation(values: Iterable[float]) -> float:
    """Standard deviation / mean; 0 without values."""
    values = list(values)
    middle = mean(values)
    return (mean((value - middle) ** 2 for value in values)) ** 0.5 / middle if middle else 0.0
