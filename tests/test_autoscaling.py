"""The ready ScaledObject asks for metrics that exist, and its queries give the figures that its comments promise."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from proxy.adapters.metrics import FAMILIES

ROOT = Path(__file__).parent.parent
FILE = ROOT / "config/autoscaling/keda-scaledobject.yaml"
SCALED: dict[str, Any] = yaml.safe_load(FILE.read_text("utf-8"))
TRIGGERS: dict[str, dict[str, Any]] = {trigger["name"]: trigger for trigger in SCALED["spec"]["triggers"]}
GAUGES = {family.name: family for family in FAMILIES if family.kind == "gauge"}


def test_the_signals_for_autoscaling_are_published() -> None:
    signals = {"penstock_saturation_ratio", "penstock_backlog_seconds", "penstock_queue_depth"}
    assert signals <= GAUGES.keys()


def test_the_object_is_one_that_keda_takes() -> None:
    assert (SCALED["apiVersion"], SCALED["kind"]) == ("keda.sh/v1alpha1", "ScaledObject")
    spec = SCALED["spec"]
    assert spec["scaleTargetRef"].keys() == {"apiVersion", "kind", "name"}
    assert 1 <= spec["minReplicaCount"] <= spec["fallback"]["replicas"] < spec["maxReplicaCount"]
    for trigger in TRIGGERS.values():
        assert trigger.keys() == {"type", "name", "metricType", "metadata"}
        assert trigger["metricType"] in {"AverageValue", "Value"}
        assert all(isinstance(value, str) for value in trigger["metadata"].values())  # KEDA takes texts alone
        assert trigger["metadata"].keys() == {"serverAddress", "query", "threshold", "ignoreNullValues"}


@pytest.mark.parametrize("name", TRIGGERS)
def test_queries_use_declared_gauges_and_their_labels(name: str) -> None:
    query = TRIGGERS[name]["metadata"]["query"]
    used = re.findall(r"penstock_\w+", query)
    assert used
    assert set(used) <= GAUGES.keys()
    grouped = {name.strip() for names in re.findall(r"(?:by|on) \(([^)]*)\)", query) for name in names.split(",")}
    named = set(re.findall(r"(\w+)!?=~?\"", query)) | grouped
    assert named <= {"job", "instance"}.union(*(GAUGES[metric].labels for metric in used))


def series(name: str, value: str, **labels: str) -> dict[str, str]:
    told = ",".join(f'{label}="{text}"' for label, text in {"job": "penstock", "instance": "a", **labels}.items())
    return {"series": f"{name}{{{told}}}", "values": value}


def engine(name: str, limit: int, flight: int, up: int = 1) -> list[dict[str, str]]:
    return [
        series("penstock_concurrency_limit", str(limit), upstream=name),
        series("penstock_in_flight", str(flight), upstream=name),
        series("penstock_upstream_up", str(up), upstream=name),
    ]


def queue(*depths: int) -> list[dict[str, str]]:
    return [series("penstock_queue_depth", str(depth), **{"class": f"c{n}"}) for n, depth in enumerate(depths)]


# case: series, trigger, value (None: nothing, which is an error for KEDA)
CASES: dict[str, tuple[list[dict[str, str]], str, float | None]] = {
    "half used": ([*engine("a", 20, 10), *engine("b", 20, 10), *queue(0, 0)], "demand", 1.0),
    "full, twice as much waits": ([*engine("a", 20, 20), *engine("b", 20, 20), *queue(30, 50)], "demand", 6.0),
    "an engine that is down": ([*engine("a", 20, 16), *engine("b", 99, 0, up=0), *queue(0)], "demand", 0.8),
    "none is up": ([*engine("a", 20, 0, up=0), *queue(9)], "demand", None),
    "no backlog known": ([], "backlog", 0.0),
    "patient work is left out": (
        [
            series("penstock_backlog_seconds", "4", **{"class": "high"}),
            series("penstock_backlog_seconds", "7", **{"class": "normal"}),
            series("penstock_backlog_seconds", "900", **{"class": "low"}),
        ],
        "backlog",
        7.0,
    ),
}


@pytest.mark.system
def test_the_queries_give_what_their_comments_promise(tmp_path: Path) -> None:
    promtool = shutil.which("promtool")
    assert promtool, "install the Debian package prometheus"
    rules = [{"record": f"keda:{name}", "expr": one["metadata"]["query"]} for name, one in TRIGGERS.items()]
    (tmp_path / "rules.yml").write_text(yaml.safe_dump({"groups": [{"name": "keda", "rules": rules}]}), "utf-8")
    tests = [
        {
            "name": case,
            "interval": "1m",
            "input_series": [{**one, "values": f"{one['values']}x5"} for one in given],
            "promql_expr_test": [
                {
                    "expr": f"sum(keda:{name})",
                    "eval_time": "5m",
                    "exp_samples": [] if value is None else [{"labels": "{}", "value": value}],
                }
            ],
        }
        for case, (given, name, value) in CASES.items()
    ]
    file = tmp_path / "tests.yml"
    file.write_text(yaml.safe_dump({"rule_files": ["rules.yml"], "evaluation_interval": "1m", "tests": tests}), "utf-8")
    done = subprocess.run([promtool, "test", "rules", str(file)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
