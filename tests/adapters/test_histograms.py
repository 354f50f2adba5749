from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry
from prometheus_client import Histogram as Reference

from proxy.adapters.histograms import (
    ITL_EDGES_S,
    LABEL_LENGTH_MAX,
    Distribution,
    Family,
    HistogramCell,
    counter,
    edges_with,
    histogram,
    label_text,
)

EDGES = st.lists(st.floats(1e-6, 1e6), min_size=1, max_size=12, unique=True).map(lambda values: tuple(sorted(values)))


@settings(max_examples=60, deadline=None)
@given(EDGES, st.data())
def test_counts_agree_with_prometheus_client(edges: tuple[float, ...], data: st.DataObject) -> None:
    values = data.draw(st.lists(st.one_of(st.floats(0, 1e7), st.sampled_from(edges)), max_size=30))
    registry = CollectorRegistry()
    reference = Reference("reference", "", buckets=edges, registry=registry)
    cell = HistogramCell(edges)
    for value in values:
        reference.observe(value)
        cell.observe(value)
    samples = [sample for metric in registry.collect() for sample in metric.samples]
    cumulative = [sample.value for sample in samples if sample.name.endswith("_bucket")]
    assert [sum(cell.counts[: index + 1]) for index in range(len(cell.counts))] == cumulative
    assert math.isclose(cell.total, sum(values), abs_tol=1e-9)


@given(st.floats(-1, 100), st.integers(0, 50))
def test_many_at_once_is_the_same_as_one_by_one(value: float, count: int) -> None:
    at_once, one_by_one = HistogramCell(ITL_EDGES_S), HistogramCell(ITL_EDGES_S)
    at_once.observe_many(value, count)
    for _ in range(count):
        one_by_one.observe(value)
    assert at_once.counts == one_by_one.counts
    assert math.isclose(at_once.total, one_by_one.total, abs_tol=1e-9)


@pytest.mark.parametrize("value", [-1.0, math.nan, -math.inf])
def test_what_is_no_duration_counts_as_zero(value: float) -> None:
    cell = HistogramCell((1.0,))
    cell.observe(value)
    assert (cell.counts, cell.total) == ([1, 0], 0.0)


def test_every_target_is_an_edge_and_edges_stay_sorted() -> None:
    edges = edges_with(ITL_EDGES_S, [0.033, 0.05, 0.05, 0.0, -1.0])
    assert list(edges) == sorted(set(edges))
    assert set(edges) == {*ITL_EDGES_S, 0.033, 0.05}


@pytest.mark.parametrize(
    ("value", "label"),
    [
        ("Qwen/Qwen3-14B", "Qwen/Qwen3-14B"),
        ("", "none"),
        ("a\nb\x1b", "a?b?"),
        ("\ud800é", "??"),
        ("x" * 500, "x" * LABEL_LENGTH_MAX),
    ],
)
def test_a_label_is_printable_ascii(value: str, label: str) -> None:
    assert label_text(value) == label


def test_values_that_clean_to_the_same_label_share_one_cell() -> None:
    table = counter(Family("a_total", "counter", ("model",), "help"))
    table.at("é").value += 1
    table.at("ü").value += 1
    table.at("?").value += 1
    assert table.copy().values == [(("?",), 3.0)]


def test_a_copy_does_not_change_any_more() -> None:
    table = histogram(Family("a_seconds", "histogram", (), "help", (1.0, 2.0)), targets=[1.5])
    cell = table.at()
    cell.observe(1.2)
    copied = table.copy()
    cell.observe(9.0)
    assert copied.family.edges == (1.0, 1.5, 2.0)
    assert copied.values == [((), Distribution([0, 1, 0, 0], 1.2))]
