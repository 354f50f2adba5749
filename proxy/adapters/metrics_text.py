"""Copied numbers as text: Prometheus' format 0.0.4 or OpenMetrics 1.0 (https://prometheus.io/docs/specs/om/).

OpenMetrics names a counter's family without `_total` and may add an exemplar to a bucket. Written here because one join
per series is enough: prometheus_client makes an object and a sorted dictionary of each line, and holds the interpreter
more than ten times as long, which the streams that are relayed meanwhile would feel.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import accumulate
from math import isfinite, isnan
from typing import Final

from proxy.adapters.histograms import Distribution, Exposed, Family, Labels, Mark

TOTAL: Final = "_total"


def number(value: float) -> str:
    """A float as both formats write it."""
    if isfinite(value):
        return repr(float(value))
    return "NaN" if isnan(value) else "+Inf" if value > 0 else "-Inf"


def text_of(exposed: Iterable[Exposed], openmetrics: bool) -> str:
    """All families; what ends an OpenMetrics text is for the caller to add."""
    return "".join(piece for one in exposed for piece in _family(one, openmetrics))


def _family(one: Exposed, openmetrics: bool) -> Iterator[str]:
    family = one.family
    name = family.name.removesuffix(TOTAL) if openmetrics and family.kind == "counter" else family.name
    yield f"# HELP {name} {family.help}\n# TYPE {name} {family.kind}\n"
    if family.kind == "histogram":
        yield from _histogram(one, openmetrics)
        return
    for labels, value in one.values:
        assert isinstance(value, float)
        inside = _pairs(family, labels)
        yield f"{family.name}{{{inside}}} {number(value)}\n" if inside else f"{family.name} {number(value)}\n"


def _histogram(one: Exposed, openmetrics: bool) -> Iterator[str]:
    name = one.family.name
    edges = [f'le="{number(edge)}"}} ' for edge in one.family.edges] + ['le="+Inf"} ']
    for labels, value in one.values:
        assert isinstance(value, Distribution)
        inside = _pairs(one.family, labels)
        head = f"{name}_bucket{{{inside}{',' if inside else ''}"
        counts = list(accumulate(value.counts))
        lines = [f"{head}{edge}{count}" for edge, count in zip(edges, counts, strict=True)]
        if openmetrics and value.marks:
            for place, mark in value.marks.items():
                lines[place] += _exemplar(mark)
        braces = f"{{{inside}}}" if inside else ""
        yield "\n".join([*lines, f"{name}_count{braces} {counts[-1]}", f"{name}_sum{braces} {number(value.total)}\n"])


def _exemplar(mark: Mark) -> str:
    return f' # {{trace_id="{mark.trace_id}"}} {number(mark.value)} {mark.wall_s:.3f}'


def _pairs(family: Family, labels: Labels) -> str:
    """`a="x",b="y"`. Values hold printable ASCII only (`label_text`), so two signs are left to escape."""
    return ",".join(
        '{}="{}"'.format(name, value.replace("\\", "\\\\").replace('"', '\\"'))
        for name, value in zip(family.labels, labels, strict=True)
    )
