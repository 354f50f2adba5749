"""Which class a request runs in: header, else body `priority`, else `service_tier`, else the tenant's default.

Numbers follow vLLM's polarity: lower is sooner. A number p falls into the highest class with p <= priority_max. The
first source that is present decides; if its value means nothing, the tenant's default holds and the choice says
`unknown`. The class is never higher than the tenant's `max_class`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from proxy.wire.facts import RequestFacts

_INTEGER: Final = re.compile(r"[+-]?[0-9]{1,18}")


@dataclass(frozen=True, slots=True)
class ClassRule:
    """One class; rules are listed highest first. `priority_max` None takes every number."""

    name: str
    priority_max: int | None = None
    service_tiers: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class TenantRule:
    """What a tenant may ask for, by class name; `models` None allows all."""

    name: str
    default_class: str
    max_class: str
    models: frozenset[str] | None = None


@dataclass(slots=True)
class ClassChoice:
    """`clamped`: a higher class was asked for. `unknown`: the value asked for means nothing."""

    class_index: int
    clamped: bool = False
    unknown: bool = False


def choose_class(
    rules: Sequence[ClassRule], tenant: TenantRule, priorities: Sequence[str], facts: RequestFacts
) -> ClassChoice:
    """The class of one request. `priorities` are header values, the deciding one first; tenant classes must exist."""
    unknown = False
    asked: int | None = None
    if priorities:
        asked = _by_header(rules, priorities[0])
        unknown = asked is None
    elif facts.priority is not None:
        asked = _by_number(rules, facts.priority)
    elif facts.service_tier is not None:
        asked = _by_tier(rules, facts.service_tier)
        unknown = asked is None
    elif facts.odd_class:
        unknown = True
    if asked is None:
        asked = _by_name(rules, tenant.default_class)
    ceiling = _by_name(rules, tenant.max_class)
    assert asked is not None and ceiling is not None
    return ClassChoice(max(asked, ceiling), asked < ceiling, unknown)


def _by_name(rules: Sequence[ClassRule], name: str) -> int | None:
    index = 0
    for rule in rules:
        if rule.name == name:
            return index
        index += 1  # noqa: SIM113 - half the time of enumerate, on every request
    return None


def _by_number(rules: Sequence[ClassRule], number: int) -> int:
    for index, rule in enumerate(rules):
        if rule.priority_max is None or number <= rule.priority_max:
            return index
    return len(rules) - 1


def _by_tier(rules: Sequence[ClassRule], tier: str) -> int | None:
    for index, rule in enumerate(rules):
        if tier in rule.service_tiers:
            return index
    return None


def _by_header(rules: Sequence[ClassRule], value: str) -> int | None:
    """A class name, or a number as in the body."""
    index = _by_name(rules, value)
    if index is None and _INTEGER.fullmatch(value):
        return _by_number(rules, int(value))
    return index
