from __future__ import annotations

from pathlib import Path

import pytest

from tests.settings.faults import Write


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write(text: str, name: str = "penstock.yaml") -> Path:
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        return path

    return write
