"""The vocabulary: what is given to a constructor stands in the field of its name."""

from __future__ import annotations

import inspect
from dataclasses import fields

import pytest

from proxy.types import Decisions, Dispatch, Ticket, TicketState, Work, WorkEstimate


@pytest.mark.source  # a compiled constructor takes only values of its types
def test_a_ticket_holds_what_it_is_given_and_nothing_of_the_dispatcher() -> None:
    given = list(inspect.signature(Ticket).parameters)
    numbers = {name: float(number) for number, name in enumerate(given, start=1)}
    ticket = Ticket(**numbers)  # type: ignore[arg-type]  # any values, as long as they differ
    assert {name: getattr(ticket, name) for name in given} == numbers
    written = {one.name: getattr(ticket, one.name) for one in fields(Ticket) if one.name not in given}
    assert written.pop("state") is TicketState.NEW
    assert not any(written.values()), "empty, zero or None"
    assert Ticket(1, "a", 0, "m", Work.GENERATE, True, WorkEstimate(), 0, 0.0).retryable


def test_decisions_begin_with_what_is_dispatched() -> None:
    ticket = Ticket(1, "a", 0, "m", Work.GENERATE, True, WorkEstimate(), 0, 0.0)
    assert Decisions() == Decisions()
    assert Decisions().dispatches is not Decisions().dispatches
    assert Decisions(Dispatch(ticket, "u")).dispatches == [Dispatch(ticket, "u")]
