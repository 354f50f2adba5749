"""How much Python an action runs: a measure of cost that no load of the machine can change."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import FrameType
from typing import Any


def lines_executed(action: Callable[[], object], package: str = "proxy.") -> int:
    """Lines that run in modules whose name begins with `package`."""
    executed = 0

    def trace(frame: FrameType, event: str, argument: object) -> Callable[..., Any]:
        nonlocal executed
        executed += event == "line" and frame.f_globals.get("__name__", "").startswith(package)
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        action()
    finally:
        sys.settrace(before)
    return executed
