from __future__ import annotations

import pytest

from proxy.dispatcher.turns import TURN, Turns
from proxy.types import Ticket, Work, WorkEstimate


def running(number: int) -> tuple[Ticket, int]:
    return Ticket(number, "a", 0, "m", Work.GENERATE, True, WorkEstimate(1, 1, 1), 0, 0.0), 10


@pytest.mark.parametrize(("crowd", "rounds"), [(0, 1), (1, 1), (TURN, 1), (TURN + 1, 2), (3 * TURN - 1, 3)])
def test_all_have_their_turn_and_a_small_crowd_always(crowd: int, rounds: int) -> None:
    turns, progress = Turns(), tuple(running(number) for number in range(crowd))
    for _ in range(3):
        taken = [turns.take(progress) for _ in range(rounds)]
        assert sum(taken, ()) == progress
        assert max(map(len, taken)) <= TURN


def test_a_crowd_that_shrinks_begins_anew() -> None:
    turns, progress = Turns(), tuple(running(number) for number in range(TURN + 2))
    turns.take(progress)
    assert turns.take(progress[:TURN]) == progress[:TURN]
