"""What is measured of each proxy: one row of the table each."""

from __future__ import annotations

from typing import NamedTuple


class Case(NamedTuple):
    """One row: `unit` is what the CPU time is divided by."""

    name: str
    connections: int
    body_bytes: int
    streaming: bool

    @property
    def unit(self) -> str:
        return "events" if self.streaming else "requests"


CASES = (
    Case("1 connection, 1 kB", 1, 1_000, False),
    Case("32 connections, 1 kB", 32, 1_000, False),
    Case("256 connections, 1 kB", 256, 1_000, False),
    Case("32 connections, 32 kB", 32, 32_000, False),
    Case("8 connections, 1 MB", 8, 1_000_000, False),
    Case("256 streams of 50 events/s", 256, 1_000, True),
)
