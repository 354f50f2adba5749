"""Where the files that ship with the program lie: in a checkout beside the package, in an installed wheel inside it."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

PACKAGE = Path(__file__).resolve().parent.parent


def data_folder(name: Literal["config", "grafana"], package: Path = PACKAGE) -> Path:
    """The folder `config` or `grafana`; the wheel carries both under `_data`."""
    installed = package / "_data" / name
    return installed if installed.is_dir() else package.parent / name
