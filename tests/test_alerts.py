"""Alerts ask only for metrics that exist, say what to do, fire when they should and stay silent otherwise."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from proxy.adapters.metrics import FAMILIES
from proxy.types import Outcome

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "config/prometheus"
GROUPS = yaml.safe_load((FOLDER / "alerts.yml").read_text("utf-8"))["groups"]
RULES: list[dict[str, Any]] = [rule for group in GROUPS for rule in group["rules"]]
ALERTS: dict[str, dict[str, Any]] = {rule["alert"]: rule for rule in RULES if "alert" in rule}
RECORDED = {rule["record"] for rule in RULES if "record" in rule}

WHO = 'job="penstock",instance="a"'
GOOD = f'penstock_good_requests_total{{{WHO},model="m",class="c"}}'
ENDED = f'penstock_requests_total{{{WHO},model="m",class="c",outcome="success"}}'
WRONG = f'penstock_requests_total{{{WHO},model="m",class="c",outcome="bad_request"}}'
LIMIT, CEILING = (f'penstock_{name}{{{WHO},upstream="u"}}' for name in ("concurrency_limit", "memory_ceiling_seats"))
DEPTH, CAPACITY = (f'penstock_queue_{name}{{{WHO},class="c"}}' for name in ("depth", "capacity"))
KV = f'penstock_engine_kv_usage_ratio{{{WHO},upstream="u"}}'
SATURATION = f"penstock_saturation_ratio{{{WHO}}}"
PREEMPTIONS = f'penstock_engine_preemptions_total{{{WHO},upstream="u"}}'
LAG = f"penstock_event_loop_lag_seconds_bucket{{{WHO},le="
RELOADS = f'penstock_config_reloads_total{{{WHO},result="invalid"}}'
FAULTS = f'penstock_internal_errors_total{{{WHO},part="exchange"}}'
DROPPED = f"penstock_log_lines_dropped_total{{{WHO}}}"

Series = dict[str, str]


def upstream(name: str) -> str:
    return f'penstock_{name}{{{WHO},upstream="u"}}'


# alert: series that make it fire, series that leave it silent; values are Prometheus' notation for one per minute
CASES: dict[str, tuple[Series, Series]] = {
    "PenstockDown": ({f"up{{{WHO}}}": "0x600"}, {f"up{{{WHO}}}": "1x600"}),
    "PenstockTargetMissedFast": (
        {ENDED: "0+60x600", GOOD: "0+20x600"},
        {ENDED: "0+60x600", GOOD: "0+50x600", WRONG: "0+600x600"},
    ),
    "PenstockTargetMissedSlowly": ({ENDED: "0+60x600", GOOD: "0+48x600"}, {ENDED: "0+60x600", GOOD: "0+57x600"}),
    "PenstockQueueNearlyFull": ({DEPTH: "90x600", CAPACITY: "100x600"}, {DEPTH: "70x600", CAPACITY: "100x600"}),
    "PenstockStarvingRequest": (
        {f'penstock_queue_oldest_wait_seconds{{{WHO},class="c"}}': "90x600"},
        {f'penstock_queue_oldest_wait_seconds{{{WHO},class="c"}}': "20x600"},
    ),
    "PenstockLimitAtMinimum": ({LIMIT: "1x600", DEPTH: "3x600"}, {LIMIT: "1x600", DEPTH: "0x600"}),
    "PenstockLimitAtMemoryCeiling": (
        {LIMIT: "40.5x600", CEILING: "40x600", DEPTH: "3x600"},
        {LIMIT: "30x600", CEILING: "40x600", DEPTH: "3x600"},
    ),
    "PenstockKvUsageOutsideRange": (
        {KV: "0.9x600", SATURATION: "1x600"},
        {KV: "0.55x600", SATURATION: "1x600"},
    ),
    "PenstockPreemptionsBelowCeiling": (
        {PREEMPTIONS: "0+5x600", LIMIT: "30x600", CEILING: "40x600"},
        {PREEMPTIONS: "5x600", LIMIT: "30x600", CEILING: "40x600"},
    ),
    "PenstockUpstreamDown": ({upstream("upstream_up"): "0x600"}, {upstream("upstream_up"): "1x600"}),
    "PenstockTelemetryStale": (
        {upstream("telemetry_age_seconds"): "45x600"},
        {upstream("telemetry_age_seconds"): "2x600"},
    ),
    "PenstockAbortsHang": ({upstream("aborting"): "2x600"}, {upstream("aborting"): "2 0 1 0 3 0 2 0x600"}),
    "PenstockPermitsLeaked": (
        {f"penstock_leaked_permits{{{WHO}}}": "1x600"},
        {f"penstock_leaked_permits{{{WHO}}}": "0x600"},
    ),
    "PenstockInternalErrors": ({FAULTS: "0x590 1x10"}, {FAULTS: "1x600"}),
    "PenstockLoopSlow": (
        {f'{LAG}"0.05"}}': "0x600", f'{LAG}"0.1"}}': "0+60x600", f'{LAG}"+Inf"}}': "0+60x600"},
        {f'{LAG}"0.05"}}': "0+60x600", f'{LAG}"0.1"}}': "0+60x600", f'{LAG}"+Inf"}}': "0+60x600"},
    ),
    "PenstockReloadFailed": ({RELOADS: "0x590 1x10"}, {RELOADS: "1x600"}),
    "PenstockLogLinesDropped": ({DROPPED: "0x590 7x10"}, {DROPPED: "7x600"}),
}


def test_rules_use_declared_metrics_and_outcomes() -> None:
    names = {family.name for family in FAMILIES} | {
        f"{family.name}_bucket" for family in FAMILIES if family.kind == "histogram"
    }
    for rule in RULES:
        for name in re.findall(r"\bpenstock\w+(?::\w+)*", rule["expr"].replace('"penstock"', "")):
            assert name in names | RECORDED, name
        for choices in re.findall(r'outcome!~"([^"]+)"', rule["expr"]):
            assert set(choices.split("|")) <= {outcome.value for outcome in Outcome}


@pytest.mark.parametrize("name", ALERTS)
def test_alerts_say_what_happened_and_where_to_read_on(name: str) -> None:
    alert = ALERTS[name]
    notes = alert["annotations"]
    assert notes.keys() == {"summary", "description", "runbook_url"}
    assert notes["description"].endswith(".")
    assert alert["labels"]["severity"] in {"critical", "warning", "info"}
    page, anchor = notes["runbook_url"].split("#")
    headings = re.findall(r"^## (\w+)$", (ROOT / page).read_text("utf-8"), re.MULTILINE)
    assert anchor == name.lower()
    assert name in headings
    assert set(headings) == ALERTS.keys()


def test_each_alert_has_a_case_that_fires_and_one_that_does_not() -> None:
    assert CASES.keys() == ALERTS.keys()


def case(name: str, series: Series, fires: bool) -> dict[str, Any]:
    """One test of `promtool test rules`: ten hours of one value per minute, judged at the end."""
    query = {
        "expr": f'count(ALERTS{{alertname="{name}",alertstate="firing"}})',
        "eval_time": "10h",
        "exp_samples": [{"labels": "{}", "value": 1}] if fires else [],
    }
    return {
        "interval": "1m",
        "input_series": [{"series": series_name, "values": values} for series_name, values in series.items()],
        "promql_expr_test": [query],
    }


@pytest.mark.system
def test_prometheus_accepts_the_rules_and_they_fire_when_they_should(tmp_path: Path) -> None:
    promtool = shutil.which("promtool")
    assert promtool, "install the Debian package prometheus"
    tests = [
        case(name, series, fires)
        for name, pair in CASES.items()
        for series, fires in zip(pair, (True, False), strict=True)
    ]
    rules = tmp_path / "tests.yml"
    document = {"rule_files": [str(FOLDER / "alerts.yml")], "evaluation_interval": "1m", "tests": tests}
    rules.write_text(yaml.safe_dump(document), "utf-8")
    for command in (["check", "config", str(FOLDER / "prometheus.yml")], ["test", "rules", str(rules)]):
        done = subprocess.run([promtool, *command], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
