"""docs/observability.md lists every metric as it is declared, and names only paths that exist."""

from __future__ import annotations

import re
from pathlib import Path

from proxy.adapters.metrics import FAMILIES

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "docs/observability.md").read_text("utf-8")


def rows() -> list[str]:
    """The rows of the table, in the order of the declarations."""
    return [
        f"| `{family.name}` | {family.kind} | {', '.join(f'`{label}`' for label in family.labels)} | {family.help} |"
        for family in FAMILIES
    ]


def test_every_metric_is_listed_as_declared() -> None:
    assert [line for line in TEXT.splitlines() if line.startswith("| `penstock_")] == rows()


def test_paths_and_pictures_exist() -> None:
    named = re.findall(r"`((?:config|grafana|tests)/[\w./*-]+)`", TEXT) + re.findall(r"\]\(([\w./-]+)\)", TEXT)
    assert len(named) > 8
    for path in named:
        base = ROOT if path.startswith(("config/", "grafana/", "tests/")) else ROOT / "docs"
        assert list(base.glob(path)), path
