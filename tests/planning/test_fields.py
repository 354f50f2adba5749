"""Strict readers: aliases, nulls, types, ranges."""

from __future__ import annotations

import pytest

from proxy.planning.fields import Fields, PlanError, shown


def test_aliases_and_nulls() -> None:
    fields = Fields({"a": None, "b": 3, "c": 4.0, "t": "x", "f": True, "l": [1], "m": {"k": 2}})
    assert fields.integer("a", "b") == 3
    assert fields.integer("c") == 4
    assert fields.integer("z", default=9) == 9
    assert fields.optional_integer("a") is None
    assert (fields.text("t"), fields.text("a", default="y")) == ("x", "y")
    assert (fields.flag("f"), fields.flag("a"), fields.has("a"), fields.has("b")) == (True, False, False, True)
    assert (fields.items("l"), fields.items("a"), fields.child("a")) == ([1], None, None)
    inner = fields.child("m")
    assert inner is not None
    assert inner.source == "config.json: m"
    assert (fields.number("b", low=0, high=5, default=1), fields.number("a", low=0, high=5, default=1)) == (3.0, 1)


@pytest.mark.parametrize(
    ("call", "line"),
    [
        (lambda fields: fields.integer("a", "z"), r"key a is missing \(also read: z\); add it"),
        (lambda fields: fields.integer("t"), "t must be a whole number from 1 to"),
        (lambda fields: fields.integer("h"), "h must be a whole number"),
        (lambda fields: fields.number("t", low=0, high=1, default=0), "t must be a number from 0 to 1"),
        (lambda fields: fields.number("f", low=0, high=1, default=0), "f must be a number"),
        (lambda fields: fields.text("b"), "b must be text"),
        (lambda fields: fields.flag("b"), "b must be true or false"),
        (lambda fields: fields.items("b"), "b must be a list"),
        (lambda fields: fields.items("l", length=2), "l has 1 entries, but the model has 2 layers"),
        (lambda fields: fields.child("b"), "b must be a mapping"),
    ],
)
def test_refusals(call: object, line: str) -> None:
    fields = Fields({"b": 3, "t": "x", "f": True, "h": 0.5, "l": [1]})
    with pytest.raises(PlanError, match=line):
        call(fields)  # type: ignore[operator]


def test_foreign_values_are_shown_short() -> None:
    assert shown("x" * 100) == repr("x" * 100)[:37] + "..."
    assert shown([1]) == "[1]"
