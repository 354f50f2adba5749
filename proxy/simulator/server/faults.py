"""Faults on demand, by `POST /sim/control`: a simulator-only route that no real engine has.

Keys, all optional, kept until changed: `slowdown` (factor on every step time), `stall` (no step is made while true),
`healthy` (false: /health answers 503), `abort_delay_s` (aborted work runs on that long), `fail_status` (status of every
inference request, null: none). Consumed by one inference request each: `fail_next` (list of statuses), `reset_next`
(number of connections to drop without an answer), `cut_next` (number of streams to drop after `cut_tokens` tokens).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(slots=True)
class Faults:
    slowdown: float = 1.0
    stall: bool = False
    healthy: bool = True
    abort_delay_s: float = 0.0
    fail_status: int | None = None
    fail_next: list[int] = field(default_factory=list)
    reset_next: int = 0
    cut_next: int = 0
    cut_tokens: int = 3

    def change(self, asked: Mapping[str, Any]) -> None:
        """Raises ValueError, naming the key, and then changes nothing."""
        for key, value in asked.items():
            if key not in RULES:
                raise ValueError(f"{key} is not a fault; choose from: {', '.join(RULES)}")
            text, fits = RULES[key]
            if not fits(value):
                raise ValueError(f"{key} must be {text}")
        for key, value in asked.items():
            setattr(self, key, value)

    def state(self) -> dict[str, Any]:
        return asdict(self)

    def next_failure(self) -> int | None:
        """Status that this inference request fails with; None: it goes on."""
        return self.fail_next.pop(0) if self.fail_next else self.fail_status

    def next_reset(self) -> bool:
        self.reset_next, hit = max(0, self.reset_next - 1), self.reset_next > 0
        return hit

    def next_cut(self) -> int | None:
        """Tokens after which this stream is dropped; None: never."""
        self.cut_next, hit = max(0, self.cut_next - 1), self.cut_next > 0
        return self.cut_tokens if hit else None


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_status(value: Any) -> bool:
    return _is_count(value) and 400 <= value <= 599


Rule = tuple[str, Callable[[Any], bool]]
FLAG: Rule = ("true or false", lambda value: isinstance(value, bool))
COUNT: Rule = ("a whole number of at least 0", _is_count)
RULES: dict[str, Rule] = {
    "slowdown": ("a positive number", lambda value: _is_number(value) and value > 0),
    "stall": FLAG,
    "healthy": FLAG,
    "abort_delay_s": ("a number of at least 0", lambda value: _is_number(value) and value >= 0),
    "fail_status": ("a status from 400 to 599, or null", lambda value: value is None or _is_status(value)),
    "fail_next": (
        "a list of statuses from 400 to 599",
        lambda value: isinstance(value, list) and all(map(_is_status, value)),
    ),
    "reset_next": COUNT,
    "cut_next": COUNT,
    "cut_tokens": COUNT,
}
