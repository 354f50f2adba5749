"""Child processes of tests import the `proxy` that the tests import, from source or installed, and `tests`."""

from __future__ import annotations

import os
from pathlib import Path

import proxy

ROOT = Path(__file__).parent.parent
IMPORTS = os.pathsep.join(dict.fromkeys([str(Path(proxy.__file__).parent.parent), str(ROOT)]))


def environ() -> dict[str, str]:
    """Ours; a child may run anywhere."""
    return {**os.environ, "PYTHONPATH": IMPORTS}
