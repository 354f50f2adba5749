"""Strict reading of a parsed JSON or YAML mapping that nobody has checked.

Every reader takes aliases in order, skips null, checks type and range, and refuses with one line that names the key.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

TOKENS_MAX = 2**31
TEXT_SHOWN_MAX = 40


class PlanError(ValueError):
    """A plan cannot be made: one line that names the key or flag and the remedy."""


def shown(value: object) -> str:
    """A short, printable form of a foreign value for an error line."""
    text = repr(value)
    return text if len(text) <= TEXT_SHOWN_MAX else f"{text[: TEXT_SHOWN_MAX - 3]}..."


@dataclass(frozen=True, slots=True)
class Fields:
    """A mapping and the name that error lines give it."""

    values: Mapping[str, Any]
    source: str = "config.json"

    def find(self, *names: str) -> tuple[str, Any]:
        """The first alias that holds a value, or the first name and None."""
        for name in names:
            if self.values.get(name) is not None:
                return name, self.values[name]
        return names[0], None

    def has(self, *names: str) -> bool:
        return self.find(*names)[1] is not None

    def optional_integer(self, *names: str, low: int = 1, high: int = TOKENS_MAX) -> int | None:
        name, value = self.find(*names)
        return None if value is None else self.checked_integer(name, value, low, high)

    def integer(self, *names: str, low: int = 1, high: int = TOKENS_MAX, default: int | None = None) -> int:
        found = self.optional_integer(*names, low=low, high=high)
        if found is not None:
            return found
        if default is not None:
            return default
        raise PlanError(f"{self.source}: key {names[0]} is missing{self._aliases(names)}; add it")

    def number(self, *names: str, low: float, high: float, default: float) -> float:
        name, value = self.find(*names)
        if value is None:
            return default
        if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
            raise PlanError(f"{self.source}: {name} must be a number from {low:g} to {high:g}, found {shown(value)}")
        return float(value)

    def text(self, *names: str, default: str = "") -> str:
        name, value = self.find(*names)
        if value is None:
            return default
        if not isinstance(value, str):
            raise PlanError(f"{self.source}: {name} must be text, found {shown(value)}")
        return value

    def flag(self, *names: str, default: bool = False) -> bool:
        name, value = self.find(*names)
        if value is None:
            return default
        if not isinstance(value, bool):
            raise PlanError(f"{self.source}: {name} must be true or false, found {shown(value)}")
        return value

    def items(self, *names: str, length: int | None = None) -> Sequence[Any] | None:
        """A list, of exactly `length` entries when that is given."""
        name, value = self.find(*names)
        if value is None:
            return None
        if not isinstance(value, list | tuple):
            raise PlanError(f"{self.source}: {name} must be a list, found {shown(value)}")
        if length is not None and len(value) != length:
            raise PlanError(f"{self.source}: {name} has {len(value)} entries, but the model has {length} layers")
        return value

    def child(self, *names: str) -> Fields | None:
        name, value = self.find(*names)
        if value is None:
            return None
        if not isinstance(value, Mapping):
            raise PlanError(f"{self.source}: {name} must be a mapping, found {shown(value)}")
        return Fields(value, f"{self.source}: {name}")

    def checked_integer(self, name: str, value: object, low: int = 1, high: int = TOKENS_MAX) -> int:
        """`value` as a whole number in range; a whole float such as 80.0 passes, text and booleans do not."""
        whole = isinstance(value, int) or (isinstance(value, float) and value.is_integer())
        if isinstance(value, bool) or not whole or not low <= value <= high:  # type: ignore[operator]
            raise PlanError(f"{self.source}: {name} must be a whole number from {low} to {high}, found {shown(value)}")
        return int(value)  # type: ignore[call-overload,no-any-return]

    @staticmethod
    def _aliases(names: Sequence[str]) -> str:
        return f" (also read: {', '.join(names[1:])})" if len(names) > 1 else ""
