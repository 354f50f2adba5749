"""What a ticket holds while it runs, and what may keep it from starting."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from proxy.admission.batch_sizer import AdaptiveBatchSizer
from proxy.types import GENERATE, Ticket


class Block(Enum):
    """Why a ticket cannot start at an upstream now."""

    SEATS = "seats"
    HELD_BACK = "held_back"
    STOPPED = "stopped"
    PREFILL = "prefill"
    ELEPHANT = "elephant"
    MEMORY = "memory"
    EXCLUDED = "excluded"  # it has failed this ticket already
    RESERVED = "reserved"  # its memory is kept for a bigger ticket


@dataclass(slots=True, eq=False, init=False)
class Permit:
    """The right of one ticket to hold seats and memory at one upstream."""

    ticket: Ticket
    seats: int
    prompt_tokens: int  # uncached, as counted in the outstanding prefill while `prefilling`
    ahead_tokens: float  # outstanding prefill when it was dispatched
    cost: float
    owed: bool
    sizer: AdaptiveBatchSizer  # the one that let it in; one that started anew learns nothing from it
    prefilling: bool
    running: bool  # counted among those past their first token

    def __init__(
        self,
        ticket: Ticket,
        seats: int,
        prompt_tokens: int,
        ahead_tokens: float,
        cost: float,
        owed: bool,
        sizer: AdaptiveBatchSizer,
        prefilling: bool,
        running: bool,
    ) -> None:
        self.ticket, self.seats, self.prompt_tokens, self.ahead_tokens = ticket, seats, prompt_tokens, ahead_tokens
        self.cost, self.owed, self.sizer, self.prefilling, self.running = cost, owed, sizer, prefilling, running


def seats_of(ticket: Ticket) -> int:
    """Sequences that the engine runs for this ticket."""
    choices = ticket.estimate.choices
    return choices if choices > 1 and ticket.work is GENERATE else 1
