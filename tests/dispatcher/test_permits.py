from __future__ import annotations

import pytest

from proxy.dispatcher.permits import seats_of
from proxy.types import Ticket, Work, WorkEstimate


@pytest.mark.parametrize(
    ("work", "choices", "seats"),
    [(Work.GENERATE, 1, 1), (Work.GENERATE, 4, 4), (Work.EMBED, 4, 1), (Work.AUDIO, 2, 1)],
)
def test_only_generation_takes_a_seat_for_each_choice(work: Work, choices: int, seats: int) -> None:
    ticket = Ticket(1, "a", 0, "m", work, False, WorkEstimate(10, 1, None, choices), 0, 0.0)
    assert seats_of(ticket) == seats
