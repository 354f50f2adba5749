"""Which class: sources in their order, polarity, clamp."""

from __future__ import annotations

import pytest

from proxy.types import WorkEstimate
from proxy.wire.facts import RequestFacts
from proxy.wire.priority import ClassChoice, ClassRule, TenantRule, choose_class

RULES = (
    ClassRule("critical", -10),
    ClassRule("high", -1, frozenset({"priority"})),
    ClassRule("normal", 0, frozenset({"auto"})),
    ClassRule("low", None, frozenset({"flex"})),
)
TENANT = TenantRule("t", "normal", "high")


@pytest.mark.parametrize(
    ("headers", "priority", "tier", "odd", "expected"),
    [
        ((), None, None, False, ClassChoice(2)),
        (("low",), None, None, False, ClassChoice(3)),
        (("high",), 5, "flex", False, ClassChoice(1)),
        (("low", "high"), None, None, False, ClassChoice(3)),
        (("critical",), None, None, False, ClassChoice(1, clamped=True)),
        (("nonsense",), -5, None, False, ClassChoice(2, unknown=True)),
        (("-1",), None, None, False, ClassChoice(1)),
        (("7",), None, None, False, ClassChoice(3)),
        (("9" * 30,), None, None, False, ClassChoice(2, unknown=True)),
        ((), 0, "flex", False, ClassChoice(2)),
        ((), 1, None, False, ClassChoice(3)),
        ((), -(2**62), None, False, ClassChoice(1, clamped=True)),
        ((), None, "flex", False, ClassChoice(3)),
        ((), None, "gold", False, ClassChoice(2, unknown=True)),
        ((), None, None, True, ClassChoice(2, unknown=True)),
    ],
)
def test_choice(
    headers: tuple[str, ...], priority: int | None, tier: str | None, odd: bool, expected: ClassChoice
) -> None:
    facts = RequestFacts("m", False, WorkEstimate(), True, priority, None, tier, odd)
    assert choose_class(RULES, TENANT, headers, facts) == expected


def test_a_number_above_every_bound_is_the_lowest_class() -> None:
    facts = RequestFacts("m", False, WorkEstimate(), True, 99)
    assert choose_class((ClassRule("a", 0), ClassRule("b", 1)), TenantRule("t", "a", "a"), (), facts).class_index == 1
