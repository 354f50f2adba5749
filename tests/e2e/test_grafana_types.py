"""The dashboards against Grafana's own TypeScript types, from its npm package: no Grafana runs here."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.children import ROOT

pytestmark = pytest.mark.system

CHECK = Path(__file__).parent / "grafana_types"
INSTALL = ("npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--no-update-notifier")


def test_the_dashboards_have_the_shape_that_grafana_declares(tmp_path: Path) -> None:
    for path in CHECK.iterdir():
        if path.is_file():
            shutil.copy(path, tmp_path)
    for path in (ROOT / "grafana/dashboards").glob("*.json"):
        text = path.read_text("utf-8").rstrip()
        (tmp_path / f"{path.stem}.ts").write_text(
            f'import type {{ Board }} from "./board";\nconst _: Board = {text};\n'
        )
    assert shutil.which("npm"), "install Node.js with npm"
    subprocess.run(INSTALL, cwd=tmp_path, check=True, capture_output=True, timeout=120)
    check = ("npx", "--no-install", "tsc", "--pretty", "false")
    done = subprocess.run(check, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout[-3000:]
