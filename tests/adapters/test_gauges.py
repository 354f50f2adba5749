from __future__ import annotations

import pytest

from proxy.adapters import gauges as g
from proxy.adapters import metrics as m
from proxy.adapters.histograms import Distribution, Family, Labels
from proxy.adapters.metrics import FAMILIES, Metrics, MetricsConfig
from proxy.dispatcher.snapshot import UpstreamSnapshot
from tests.snapshots import TARGETS, snapshot, upstream


def all_values(*upstreams: UpstreamSnapshot) -> dict[tuple[str, Labels], float | Distribution]:
    exposed = g.gauges(snapshot(*upstreams), TARGETS, "1.2.3")
    return {(one.family.name, labels): value for one in exposed for labels, value in one.values}


@pytest.mark.parametrize(
    ("family", "labels", "value"),
    [
        (m.BUILD, ("1.2.3",), 1),
        (m.LEAKED, (), 0),
        (m.SATURATION, (), 1),
        (m.QUEUE_BYTES, (), 4096),
        (m.QUEUE_DEPTH, ("high",), 3),
        (m.QUEUE_CAPACITY, ("low",), 128),
        (m.QUEUE_OLDEST, ("high",), 1.25),
        (m.BACKLOG, ("high",), 0.5),
        (m.UPSTREAM_UP, ("vllm-0",), 1),
        (m.BREAKER, ("vllm-0",), 0),
        (m.LIMIT, ("vllm-0",), 12.6),
        (m.IN_FLIGHT, ("vllm-0",), 9),
        (m.ABORTING, ("vllm-0",), 1),
        (m.DRAINING, ("vllm-0",), 0),
        (m.CEILING_SEATS, ("vllm-0",), 40),
        (m.CEILING_TOKENS, ("vllm-0",), 100_000),
        (m.KV_RESERVED, ("vllm-0",), 2048),
        (m.LATENCY_TARGET, ("vllm-0", "itl"), 0.05),
        (m.LATENCY_TARGET, ("vllm-0", "ttft"), 0.5),
        (m.MODEL_COEFFICIENT, ("vllm-0", "a"), 0.01),
        (m.MODEL_FIT, ("vllm-0",), 0.9),
        (m.TELEMETRY_AGE, ("vllm-0",), 1.5),
        (m.ENGINE_RUNNING, ("vllm-0",), 9),
        (m.ENGINE_WAITING, ("vllm-0",), 0),
        (m.ENGINE_KV_USAGE, ("vllm-0",), 0.5),
        (m.ENGINE_PREEMPTIONS, ("vllm-0",), 2),
    ],
)
def test_each_gauge_shows_its_figure(family: Family, labels: Labels, value: float) -> None:
    assert all_values(upstream())[family.name, labels] == value


def test_what_is_not_known_has_no_series_and_unknown_targets_none_either() -> None:
    shown = all_values(upstream("other-0", telemetry=None, ceiling_seats=None))
    names = {name for name, labels in shown if labels[:1] == ("other-0",)}
    absent = {family.name for family in (m.CEILING_SEATS, m.TELEMETRY_AGE, m.ENGINE_RUNNING, m.LATENCY_TARGET)}
    assert not names & absent
    assert (m.BACKLOG.name, ("low",)) not in shown


@pytest.mark.parametrize(
    ("upstreams", "queued", "ratio"),
    [
        ((upstream(limit=20.9, in_flight=5),), 0, 0.25),
        ((upstream(limit=20.9, in_flight=5),), 5, 0.5),
        ((upstream(limit=2.0, in_flight=9),), 5, 1.0),
        ((upstream(limit=10.0, in_flight=5), upstream("b", limit=30.0, in_flight=5)), 0, 0.25),
        ((upstream(limit=10.0, in_flight=5), upstream("b", healthy=False)), 0, 0.5),
        ((upstream(limit=10.0, in_flight=5), upstream("b", draining=True)), 0, 0.5),
        ((upstream(limit=10.0, in_flight=5), upstream("b", breaker="open")), 0, 0.5),
        ((), 0, 1.0),
    ],
)
def test_saturation_is_demand_over_usable_seats(
    upstreams: tuple[UpstreamSnapshot, ...], queued: int, ratio: float
) -> None:
    assert g.saturation(snapshot(*upstreams, queued=queued)) == ratio


def test_a_scrape_holds_every_declared_family() -> None:
    metrics = Metrics(MetricsConfig(("high", "low"), version="1"))
    scrape = g.Scrape(metrics, lambda: snapshot(upstream()), lambda: TARGETS)
    names = [exposed.family.name for exposed in scrape()]
    assert sorted(names) == sorted(family.name for family in FAMILIES)
