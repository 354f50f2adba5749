"""The dashboards are what the builder makes, ask only for declared metrics, and keep the rules of Grafana's linter."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from grafana import build
from proxy.adapters.metrics import FAMILIES

ROOT = Path(__file__).parent.parent
KINDS = {family.name: family for family in FAMILIES}
SUFFIXES = ("_bucket", "_sum", "_count")
DASHBOARDS = {
    path.stem: json.loads(path.read_text("utf-8")) for path in sorted((ROOT / "grafana/dashboards").glob("*"))
}
PANELS = [
    pytest.param(panel, id=f"{name}: {panel['title']}")
    for name, board in DASHBOARDS.items()
    for panel in board["panels"]
    if panel["type"] != "row"
]
UNITS = {"none", "s", "reqps", "percentunit", "bytes"}
UNIT_OF_ENDING = {"_seconds": "s", "_bytes": "bytes", "_ratio": "percentunit"}


def metric_uses(query: str) -> list[tuple[str, str]]:
    """Each metric of a query with its labels in braces."""
    return re.findall(r"(penstock_\w+)(\{[^}]*\})?", query)


def declared(metric: str) -> Any:
    for suffix in ("", *SUFFIXES):
        family = KINDS.get(metric.removesuffix(suffix))
        if family is not None and (not suffix or family.kind == "histogram"):
            return family
    raise AssertionError(f"{metric} is not declared in proxy/adapters/metrics.py")


def test_files_are_current() -> None:
    made = build.files()
    assert {path.stem for path in made} == DASHBOARDS.keys() == {"status", "overview", "tenants", "controller"}
    for path, text in made.items():
        assert path.read_text("utf-8") == text, "run: python grafana/build.py"


def test_writing_puts_the_files_where_they_are_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = {tmp_path / "a.json": "{}\n"}
    monkeypatch.setattr(build, "files", lambda: made)
    build.main()
    assert (tmp_path / "a.json").read_text("utf-8") == "{}\n"


@pytest.mark.parametrize("board", DASHBOARDS.values(), ids=DASHBOARDS)
def test_boards_have_the_usual_variables_links_and_room(board: dict[str, Any]) -> None:
    variables = {variable["name"]: variable for variable in board["templating"]["list"]}
    assert [v["label"] for v in variables.values() if v["type"] == "datasource"] == ["Data Source"]
    assert {"datasource", "job", "instance"} == variables.keys()
    assert all(v["refresh"] == 2 and v["multi"] for v in variables.values() if v["type"] == "query")
    assert board["editable"] is False
    assert board["links"][0]["tags"] == ["penstock"]
    ids = [panel["id"] for panel in board["panels"]]
    assert len(set(ids)) == len(ids)
    taken: set[tuple[int, int]] = set()
    for panel in board["panels"]:
        place = panel["gridPos"]
        fields = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert place["x"] + place["w"] <= build.GRID_WIDTH
        assert not fields & taken, panel["title"]
        taken |= fields


@pytest.mark.parametrize("panel", PANELS)
def test_panels_have_title_help_unit_and_the_chosen_source(panel: dict[str, Any]) -> None:
    assert panel["title"]
    assert panel["description"].endswith(".")
    assert panel["fieldConfig"]["defaults"]["unit"] in UNITS
    assert panel["datasource"]["uid"] == "${datasource}"
    assert panel["targets"]
    assert all(target["datasource"]["uid"] == "${datasource}" for target in panel["targets"])
    assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"])


@pytest.mark.parametrize("panel", PANELS)
def test_queries_use_declared_metrics_their_labels_and_their_kind(panel: dict[str, Any]) -> None:
    for target in panel["targets"]:
        query = target["expr"]
        uses = metric_uses(query)
        assert uses
        for metric, labels in uses:
            family = declared(metric)
            assert 'job=~"$job",instance=~"$instance"' in labels
            assert set(re.findall(r"(\w+)(?:=|!)", labels)) <= {"job", "instance", *family.labels}
            counted = family.kind != "gauge"
            assert counted == bool(re.search(rf"(rate|increase)\({metric}\{{[^}}]*\}}\[\$__rate_interval\]\)", query))
        grouped = {name.strip() for names in re.findall(r"by \(([^)]*)\)", query) for name in names.split(",")}
        allowed = {"le", "instance"}.union(*(declared(metric).labels for metric, _ in uses))
        assert grouped <= allowed
        assert set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"])) <= grouped
        assert "histogram_quantile" not in query or "le" in grouped


@pytest.mark.parametrize("panel", PANELS)
def test_units_fit_what_is_shown(panel: dict[str, Any]) -> None:
    unit = panel["fieldConfig"]["defaults"]["unit"]
    for target in panel["targets"]:
        query = target["expr"]
        if "/" in query:
            assert unit in {"percentunit", "none"}
        elif re.search(r"rate\(penstock_\w*(requests|disconnects|retries|preemptions)\w*_total", query):
            assert unit == ("none" if query.startswith("60 *") else "reqps")
        elif "histogram_quantile" in query:
            assert unit == "s"
        else:
            metric = metric_uses(query)[0][0]
            ending = next((shown for ending, shown in UNIT_OF_ENDING.items() if metric.endswith(ending)), unit)
            assert unit == ending


def test_provisioning_names_what_the_compose_file_mounts() -> None:
    compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text("utf-8"))
    mounts = dict(volume.split(":")[:2] for volume in compose["services"]["grafana"]["volumes"])
    inside = {target: source for source, target in mounts.items()}
    [provider] = yaml.safe_load((ROOT / "grafana/provisioning/dashboards/penstock.yaml").read_text("utf-8"))[
        "providers"
    ]
    assert inside[provider["options"]["path"]] == "./grafana/dashboards"
    assert inside["/etc/grafana/provisioning"] == "./grafana/provisioning"
    [source] = yaml.safe_load((ROOT / "grafana/provisioning/datasources/prometheus.yaml").read_text("utf-8"))[
        "datasources"
    ]
    assert source["url"] == "http://prometheus:9090"
    assert source["isDefault"]
