"""A tick is short however many run: what it does for each of them it does for a part at a time, in turn.

Promised memory barely feels it: what a request has generated since its turn is missing from what it holds and still
counts as what it is expected to add.
"""

from __future__ import annotations

from typing import Final

from proxy.types import Ticket

TURN: Final = 256  # requests; as many as most engines run at once have their turn in every tick

Progress = tuple[tuple[Ticket, int], ...]


class Turns:
    """Whose turn it is."""

    __slots__ = ("_next",)

    def __init__(self) -> None:
        self._next = 0

    def take(self, progress: Progress) -> Progress:
        """The next `TURN` of them. With every call they move on; who has ended meanwhile makes others skip a turn."""
        start = self._next if self._next < len(progress) else 0
        self._next = start + TURN
        return progress[start : start + TURN]
