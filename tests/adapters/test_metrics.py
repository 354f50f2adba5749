from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest

from proxy.adapters import metrics as m
from proxy.adapters.histograms import Distribution, Family
from proxy.adapters.metrics import FAMILIES, MODELS_MAX, Metrics, MetricsConfig
from proxy.types import Direction, Outcome, Phase, Step
from tests.adapters.ended import GOOD
from tests.counting import lines_executed

CONFIG = MetricsConfig(("high", "low"), itl_targets_s=(0.033,), ttft_targets_s=(0.7,), top_tenants=5, version="1.2.3")


def values(metrics: Metrics, family: Family) -> dict[tuple[str, ...], float]:
    for exposed in metrics.copy():
        if exposed.family.name == family.name:
            return {
                labels: sum(value.counts) if isinstance(value, Distribution) else value
                for labels, value in exposed.values
            }
    raise AssertionError(f"{family.name} is not exposed")


def test_names_units_and_labels_keep_the_conventions() -> None:
    assert len({family.name for family in FAMILIES}) == len(FAMILIES)
    for family in FAMILIES:
        assert re.fullmatch(r"penstock_[a-z_]+", family.name)
        assert family.help.endswith(".")
        assert (family.kind == "counter") == family.name.endswith("_total")
        if family.kind == "histogram":
            assert family.name.endswith("_seconds")
            assert "tenant" not in family.labels
            assert list(family.edges) == sorted(set(family.edges))


@pytest.mark.parametrize(
    ("ending", "tokens"),
    [
        pytest.param({"outcome": Outcome.CLIENT_GONE}, 100, id="left during its answer"),
        pytest.param({"outcome": Outcome.QUEUE_FULL, "ttft_s": None}, 0, id="refused here"),
        pytest.param({"outcome": Outcome.UPSTREAM_STATUS}, 0, id="refused by the engine"),
    ],
)
def test_the_prompt_of_what_nobody_worked_on_is_not_counted(ending: dict[str, Any], tokens: int) -> None:
    metrics = Metrics(CONFIG)
    metrics.request_ended(replace(GOOD, **ending))
    assert values(metrics, m.TOKENS)["llama", "input"] == values(metrics, m.TENANT_TOKENS)["acme", "input"] == tokens


def test_one_good_request_counts_in_every_family_it_belongs_to() -> None:
    metrics = Metrics(CONFIG)
    metrics.request_ended(GOOD)
    metrics.request_ended(GOOD)
    both = ("llama", "high")
    assert values(metrics, m.REQUESTS) == {("llama", "high", "success"): 2}
    assert (
        values(metrics, m.GOOD_REQUESTS) == values(metrics, m.REQUEST_DURATION) == values(metrics, m.TTFT) == {both: 2}
    )
    assert values(metrics, m.ENGINE_TTFT) == {("vllm-0",): 2}
    assert values(metrics, m.GOOD_TOKENS) == {both: 40}
    assert values(metrics, m.TOKENS) == {("llama", "input"): 200, ("llama", "output"): 40}
    assert values(metrics, m.CACHED_TOKENS) == {("llama",): 128}
    assert values(metrics, m.TENANT_REQUESTS) == {("acme", "success"): 2}
    assert values(metrics, m.TENANT_TOKENS) == {("acme", "input"): 200, ("acme", "output"): 40}
    assert values(metrics, m.WASTED_TOKENS) == values(metrics, m.CLIENT_DISCONNECTS) == {}
    assert metrics.outcomes()["success"] == 2
    assert set(metrics.outcomes()) == {outcome.value for outcome in Outcome}
    assert metrics.totals() == {"requests": 2, "succeeded": 2, "good": 2, "input_tokens": 200, "output_tokens": 40}


def test_a_request_that_gave_no_byte_has_no_time_to_first_token() -> None:
    metrics = Metrics(CONFIG)
    metrics.request_ended(
        replace(GOOD, outcome=Outcome.QUEUE_FULL, ttft_s=None, engine_ttft_s=None, good=False, output_tokens=0)
    )
    assert values(metrics, m.TTFT) == {("llama", "high"): 0}
    assert values(metrics, m.ENGINE_TTFT) == {}
    assert values(metrics, m.GOOD_REQUESTS) == {("llama", "high"): 0}
    assert values(metrics, m.WASTED_TOKENS) == {}


@pytest.mark.parametrize(
    ("change", "family", "labels", "count"),
    [
        ({"clamped": True}, m.PRIORITY_CLAMPED, (), 1),
        ({"unknown_priority": True}, m.PRIORITY_UNKNOWN, (), 1),
        ({"client_attempt": 2}, m.CLIENT_RETRIES, ("2",), 1),
        ({"client_attempt": 40}, m.CLIENT_RETRIES, ("more",), 1),
        ({"usage_problem": "negative"}, m.USAGE_REJECTED, ("negative",), 1),
        ({"outcome": Outcome.CLIENT_GONE, "gone_phase": Phase.STREAMING}, m.CLIENT_DISCONNECTS, ("streaming",), 1),
        ({"outcome": Outcome.CLIENT_GONE, "abort_s": 0.01}, m.ABORT, (), 1),
        ({"outcome": Outcome.CLIENT_GONE}, m.WASTED_TOKENS, ("client_gone",), 20),
    ],
)
def test_what_is_unusual_about_a_request_is_counted(
    change: dict[str, object], family: Family, labels: tuple[str, ...], count: int
) -> None:
    metrics = Metrics(CONFIG)
    metrics.request_ended(replace(GOOD, **change))  # type: ignore[arg-type]  # the table names fields of the record
    assert values(metrics, family)[labels] == count


def test_labels_come_from_a_bounded_vocabulary() -> None:
    metrics = Metrics(CONFIG)
    refused = replace(GOOD, outcome=Outcome.BAD_REQUEST, upstream="", good=False)
    for number in range(30):
        metrics.request_ended(replace(refused, model=f"guess-{number}", class_name=f"class-{number}"))
    metrics.request_ended(replace(refused, model="", class_name=""))
    assert values(metrics, m.REQUESTS) == {
        ("other", "other", "bad_request"): 30,
        ("none", "none", "bad_request"): 1,
    }
    metrics.models_served(["guess-1"])
    metrics.request_ended(replace(refused, model="guess-1"))
    assert values(metrics, m.REQUESTS)["guess-1", "high", "bad_request"] == 1


def test_a_model_is_known_once_it_has_served_and_there_are_not_too_many() -> None:
    metrics = Metrics(CONFIG)
    for number in range(MODELS_MAX + 5):
        metrics.request_ended(replace(GOOD, model=f"model-{number}"))
    models = {labels[0] for labels in values(metrics, m.TOKENS)}
    assert len(models) == MODELS_MAX + 1
    assert "other" in models


def test_what_an_alert_asks_the_increase_of_is_zero_before_the_first() -> None:
    metrics = Metrics(CONFIG)
    assert values(metrics, m.FAULTS) == {(part,): 0 for part in (*m.PARTS, "other")}
    assert values(metrics, m.RELOADS) == {("applied",): 0, ("invalid",): 0}
    assert values(metrics, m.LOG_DROPPED) == {(): 0}


def test_events_beside_requests() -> None:
    metrics = Metrics(CONFIG)
    metrics.queue_left("high", "dispatched", 0.2)
    metrics.queue_left("high", "dispatched", 0.3)
    metrics.queue_left("unheard", "queue_timeout", 9.0)
    metrics.limit_changed(Step("vllm-0", 8, 12, Direction.UP, "headroom", 1.0))
    metrics.retry("vllm-0", "connect")
    metrics.inter_token("vllm-0", gap_s_sum=3.3, count=100)
    metrics.inter_token("vllm-0", gap_s_sum=0.0, count=0)
    metrics.loop_lag(0.002)
    metrics.config_reload("applied")
    metrics.log_dropped(3)
    metrics.short_of_files("client")
    for part in ("gate", "reload", "exchange", "gate"):
        metrics.fault(part)
    expected: list[tuple[Family, dict[tuple[str, ...], float]]] = [
        (m.QUEUE_WAIT, {("high", "dispatched"): 2, ("other", "queue_timeout"): 1}),
        (m.LIMIT_CHANGES, {("vllm-0", "up", "headroom"): 1}),
        (m.RETRIES, {("vllm-0", "connect"): 1}),
        (m.ITL, {("vllm-0",): 100}),
        (m.LOOP_LAG, {(): 1}),
        (m.RELOADS, {("applied",): 1, ("invalid",): 0}),
        (m.LOG_DROPPED, {(): 3}),
        (m.SHORT_OF_FILES, {("client",): 1, ("upstream",): 0}),
        (m.FAULTS, {**{(part,): 0.0 for part in m.PARTS}, ("gate",): 2, ("other",): 1, ("exchange",): 1}),
    ]
    for family, counted in expected:
        assert values(metrics, family) == counted, family.name


def test_targets_are_edges_and_attainment_is_exact() -> None:
    metrics = Metrics(CONFIG)
    metrics.inter_token("u", gap_s_sum=0.033, count=1)
    metrics.inter_token("u", gap_s_sum=0.0331, count=1)
    exposed = {one.family.name: one for one in metrics.copy()}
    itl = exposed[m.ITL.name]
    [(_, distribution)] = itl.values
    assert isinstance(distribution, Distribution)
    assert sum(distribution.counts[: itl.family.edges.index(0.033) + 1]) == 1
    assert 0.7 in exposed[m.TTFT.name].family.edges
    assert 0.7 in exposed[m.ENGINE_TTFT.name].family.edges


def test_counting_a_request_runs_few_lines() -> None:
    metrics = Metrics(CONFIG)
    metrics.request_ended(GOOD)  # the first one binds its cells
    assert lines_executed(lambda: metrics.request_ended(GOOD)) <= 40
