from __future__ import annotations

from math import inf, nan
from time import thread_time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.exposition import generate_latest as prometheus_text
from prometheus_client.openmetrics.exposition import generate_latest as openmetrics_text
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_prometheus

from proxy.adapters.histograms import Distribution, Exposed, Family, HistogramCell, Mark, label_text
from proxy.adapters.metrics_text import number, text_of

COUNTER = Family("penstock_a_total", "counter", ("x", "y"), "Help of a.")
GAUGE = Family("penstock_b", "gauge", (), "Help of b.")
HISTOGRAM = Family("penstock_c_seconds", "histogram", ("x",), "Help of c.", (0.5, 1.0))
BARE = Family("penstock_d_seconds", "histogram", (), "Help of d.", (0.25,))


def distribution(edges: tuple[float, ...], *values: float, marks: dict[int, Mark] | None = None) -> Distribution:
    cell = HistogramCell(edges)
    for value in values:
        cell.observe(value)
    cell.marks = marks
    return cell.copy()


MARK = Mark("0af7651916cd43dd8448eb211c80319c", 0.75, 1_700_000_000.25)
EXPOSED = [
    Exposed(COUNTER, [(("m", "n"), 3.0)]),
    Exposed(GAUGE, [((), 12.6)]),
    Exposed(HISTOGRAM, [(("m",), distribution((0.5, 1.0), 0.4, 0.75, 3.0, marks={1: MARK}))]),
    Exposed(BARE, [((), distribution((0.25,), 0.25))]),
]
PLAIN = """\
# HELP penstock_a_total Help of a.
# TYPE penstock_a_total counter
penstock_a_total{x="m",y="n"} 3.0
# HELP penstock_b Help of b.
# TYPE penstock_b gauge
penstock_b 12.6
# HELP penstock_c_seconds Help of c.
# TYPE penstock_c_seconds histogram
penstock_c_seconds_bucket{x="m",le="0.5"} 1
penstock_c_seconds_bucket{x="m",le="1.0"} 2
penstock_c_seconds_bucket{x="m",le="+Inf"} 3
penstock_c_seconds_count{x="m"} 3
penstock_c_seconds_sum{x="m"} 4.15
# HELP penstock_d_seconds Help of d.
# TYPE penstock_d_seconds histogram
penstock_d_seconds_bucket{le="0.25"} 1
penstock_d_seconds_bucket{le="+Inf"} 1
penstock_d_seconds_count 1
penstock_d_seconds_sum 0.25
"""


def test_both_forms_to_the_letter() -> None:
    assert text_of(EXPOSED, openmetrics=False) == PLAIN
    exemplar = f' # {{trace_id="{MARK.trace_id}"}} 0.75 1700000000.250'
    expected = PLAIN.replace("HELP penstock_a_total", "HELP penstock_a").replace(
        "TYPE penstock_a_total", "TYPE penstock_a"
    )
    assert text_of(EXPOSED, openmetrics=True) == expected.replace('le="1.0"} 2', f'le="1.0"}} 2{exemplar}')


@pytest.mark.parametrize(
    ("value", "text"), [(0.0, "0.0"), (3, "3.0"), (1e300, "1e+300"), (inf, "+Inf"), (-inf, "-Inf"), (nan, "NaN")]
)
def test_numbers(value: float, text: str) -> None:
    assert number(value) == text


class Theirs:
    """The same numbers as the library's families."""

    def __init__(self, label: str, count: float, values: list[float]) -> None:
        self.label, self.count, self.values = label, count, values

    def collect(self) -> list[Metric]:
        counter = CounterMetricFamily("penstock_a_total", "Help of a.", labels=("x", "y"))
        counter.add_metric((self.label, "n"), self.count)
        gauge = GaugeMetricFamily("penstock_b", "Help of b.", value=self.count)
        histogram = HistogramMetricFamily("penstock_c_seconds", "Help of c.", labels=("x",))
        below = [(edge, sum(value <= float(edge) for value in self.values)) for edge in ("0.5", "1.0", "+Inf")]
        histogram.add_metric((self.label,), below, sum(self.values))
        return [counter, gauge, histogram]


def read_openmetrics(text: str) -> list[Metric]:
    return list(parse_openmetrics(text))  # type: ignore[no-untyped-call]  # the library has no types here


@settings(max_examples=60)
@given(st.text(max_size=12), st.floats(0, 1e18), st.lists(st.floats(0, 9, width=16), max_size=6))
def test_a_parser_reads_what_it_reads_of_the_librarys_own_text(label: str, count: float, values: list[float]) -> None:
    label = label_text(label)
    ours = [
        Exposed(COUNTER, [((label, "n"), count)]),
        Exposed(GAUGE, [((), count)]),
        Exposed(HISTOGRAM, [((label,), distribution((0.5, 1.0), *values))]),
    ]
    registry = CollectorRegistry()
    registry.register(Theirs(label, count, values))
    plain, library = text_of(ours, False), prometheus_text(registry).decode()
    assert list(parse_prometheus(plain)) == list(parse_prometheus(library))
    library = openmetrics_text(registry).decode()  # type: ignore[no-untyped-call]  # the library has no types here
    assert read_openmetrics(text_of(ours, True) + "# EOF\n") == read_openmetrics(library)


def test_a_line_costs_less_than_five_microseconds() -> None:
    edges = tuple(float(edge) for edge in range(1, 25))
    family = Family("penstock_e_seconds", "histogram", ("x",), "Help of e.", edges)
    many = [Exposed(family, [((f"m-{n}",), distribution(edges, 0.5)) for n in range(200)])]
    lines = text_of(many, openmetrics=False).count("\n")

    def run() -> float:
        started = thread_time()
        text_of(many, openmetrics=False)
        return thread_time() - started

    assert lines == 200 * 27 + 2
    assert min(run() for _ in range(5)) / lines < 5e-6
