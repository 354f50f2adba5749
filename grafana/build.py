"""Builds the dashboards: `python grafana/build.py` makes dashboards/*.json (Grafana's schema v1) of boards/*.yaml.

A board is rows of panels; a panel is a title, a sentence of help, a unit and queries. In a query `WHERE` stands for the
job and instance chosen above the board, `RATE` for Grafana's own rate interval; `quantiles: [..]` of a histogram by a
label is written out here. `steps` colour a figure from a value upward, `words` put text in place of a value.
Variables and links are named like those of vLLM's boards, so that both sit side by side.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

FOLDER = Path(__file__).parent
GRID_WIDTH = 24
WIDTH, HEIGHT = 12, 8  # of a panel that says nothing else, in grid units
WHERE = 'job=~"$job",instance=~"$instance"'
SOURCE = {"type": "prometheus", "uid": "${datasource}"}
TAG = "penstock"

Json = dict[str, Any]


def boards() -> dict[str, Json]:
    """Name of each board and its description."""
    return {path.stem: yaml.safe_load(path.read_text("utf-8")) for path in sorted((FOLDER / "boards").glob("*.yaml"))}


def queries(panel: Json) -> Iterator[tuple[str, str]]:
    """PromQL and legend of each curve or figure."""
    for query in panel["queries"]:
        for rank in query.get("quantiles", ()):
            by = query["by"]
            rate = f"sum by (le, {by}) (rate({query['of']}_bucket{{WHERE}}[RATE]))"
            yield f"histogram_quantile({rank}, {rate})", f"p{round(rank * 100)} {{{{{by}}}}}"
        if "query" in query:
            yield query["query"], query.get("legend", "__auto")


def _targets(panel: Json) -> list[Json]:
    targets: list[Json] = []
    for index, (expression, legend) in enumerate(queries(panel)):
        filled = expression.replace("WHERE", WHERE).replace("RATE", "$__rate_interval")
        target: Json = {"datasource": SOURCE, "expr": filled, "legendFormat": legend, "refId": chr(ord("A") + index)}
        if "histogram_quantile" in filled:
            target["exemplar"] = True  # where tracing is on, single requests are drawn and lead to their traces
        targets.append(target)
    return targets


def _defaults(panel: Json) -> Json:
    steps = panel.get("steps", {"base": "green"})
    words = {str(value): {"text": word} for value, word in panel.get("words", {}).items()}
    return {
        "unit": panel["unit"],
        "mappings": [{"type": "value", "options": words}] if words else [],
        "thresholds": {
            "mode": "absolute",
            "steps": [{"value": None if value == "base" else value, "color": color} for value, color in steps.items()],
        },
    }


def _curves(panel: Json) -> tuple[Json, Json]:
    """Field defaults and options of a time series."""
    stacked = panel.get("stacked", False)
    custom = {
        "stacking": {"mode": "normal" if stacked else "none", "group": "A"},
        "fillOpacity": 20 if stacked else 0,
        "showPoints": "never",
    }
    options = {
        "legend": {"displayMode": "table", "placement": "bottom", "calcs": ["lastNotNull", "max"]},
        "tooltip": {"mode": "multi", "sort": "desc"},
    }
    return {**_defaults(panel), "min": 0, "custom": custom}, options


def _figure(panel: Json) -> tuple[Json, Json]:
    """Field defaults and options of a single figure."""
    options = {"reduceOptions": {"calcs": ["lastNotNull"]}, "colorMode": "background", "textMode": "value"}
    return _defaults(panel), options


def _panel(panel: Json, number: int, x: int, y: int) -> Json:
    kind = panel.get("kind", "timeseries")
    defaults, options = _figure(panel) if kind == "stat" else _curves(panel)
    return {
        "id": number,
        "type": kind,
        "title": panel["title"],
        "description": panel["help"],
        "datasource": SOURCE,
        "gridPos": {"x": x, "y": y, "w": panel.get("width", WIDTH), "h": panel.get("height", HEIGHT)},
        "fieldConfig": {"defaults": defaults, "overrides": []},
        "options": options,
        "targets": _targets(panel),
    }


def _row(title: str, number: int, y: int) -> Json:
    place = {"x": 0, "y": y, "w": GRID_WIDTH, "h": 1}
    return {"id": number, "type": "row", "title": title, "collapsed": False, "gridPos": place, "panels": []}


def _panels(board: Json) -> Iterator[Json]:
    """Rows from top to bottom, panels from left to right; all panels of a row are of one height."""
    number, y = 1, 0
    for row in board["rows"]:
        yield _row(row["title"], number, y)
        number, y, x = number + 1, y + 1, 0
        for panel in row["panels"]:
            width, height = panel.get("width", WIDTH), panel.get("height", HEIGHT)
            if x + width > GRID_WIDTH:
                x, y = 0, y + height
            yield _panel(panel, number, x, y)
            number, x = number + 1, x + width
        y += height


def _choice(name: str, label: str, query: str) -> Json:
    return {
        "name": name,
        "label": label,
        "type": "query",
        "datasource": SOURCE,
        "query": {"query": query, "refId": f"variable-{name}"},
        "refresh": 2,  # whenever the time range changes
        "includeAll": True,
        "multi": True,
        "allValue": ".+",
        "current": {"text": ["All"], "value": ["$__all"]},
        "sort": 1,
    }


def _variables() -> list[Json]:
    chosen = {"text": "default", "value": "default"}  # whichever source Grafana has as its default
    source: Json = {"name": "datasource", "label": "Data Source", "type": "datasource", "query": "prometheus"}
    source |= {"current": chosen}
    return [
        source,
        _choice("job", "Job", "label_values(penstock_build_info, job)"),
        _choice("instance", "Instance", 'label_values(penstock_build_info{job=~"$job"}, instance)'),
    ]


def dashboard(board: Json) -> Json:
    """The dashboard as Grafana provisions it."""
    link: Json = {"type": "dashboards", "title": "Penstock", "tags": [TAG], "asDropdown": True, "icon": "dashboard"}
    link |= {"includeVars": True, "keepTime": True, "targetBlank": False, "tooltip": "The other boards, same choices"}
    return {
        "uid": board["uid"],
        "title": board["title"],
        "tags": [TAG, "llm"],
        "schemaVersion": 39,
        "editable": False,
        "graphTooltip": 1,  # one crosshair over all panels
        "refresh": "10s",
        "time": {"from": "now-30m", "to": "now"},
        "timezone": "browser",
        "links": [link],
        "templating": {"list": _variables()},
        "annotations": {"list": []},
        "panels": list(_panels(board)),
    }


def files() -> dict[Path, str]:
    """Path and text of every file that is made."""
    made = {name: json.dumps(dashboard(board), indent=2) + "\n" for name, board in boards().items()}
    return {FOLDER / "dashboards" / f"{name}.json": text for name, text in made.items()}


def main() -> None:
    for path, text in files().items():
        path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
