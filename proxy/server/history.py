"""The last ten minutes, one row a second: what the status page draws, also for whoever opens it after the event.

Each row holds a few numbers per upstream and the totals since start, so that a reader forms rates over any stretch.
They stand in columns of `ROWS_MAX` doubles, all there from the first row on: 4.8 kB each, nine per upstream, and memory
does not grow while they fill.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Mapping
from math import isnan, nan
from typing import Any, NamedTuple

from proxy.admission.limits import Target
from proxy.dispatcher.snapshot import Snapshot, UpstreamSnapshot

VERSION = 1
ROWS_MAX = 600


class UpstreamRow(NamedTuple):
    """One upstream at one moment; milliseconds as in `/admin/state`. None: not known."""

    usable: bool
    limit: float
    in_flight: int
    ceiling_seats: int | None
    engine_running: float | None
    itl_ms: float | None
    itl_target_ms: float | None
    ttft_ms: float | None
    ttft_target_ms: float | None


WHOLE = frozenset({"in_flight", "ceiling_seats"})  # fields that count


class History:
    """The newest `ROWS_MAX` rows, oldest first. A number that a row does not have is NaN in its column."""

    def __init__(self) -> None:
        self._columns: dict[tuple[str, ...], array[float]] = {}
        self._noted = 0

    def note(self, snapshot: Snapshot, targets: Mapping[str, Target], totals: Mapping[str, int]) -> None:
        """Add the row of this moment; called once a second."""
        place = self._noted % ROWS_MAX
        if place == 0:
            self._forget_empty()
        self._noted += 1
        for column in self._columns.values():
            column[place] = nan
        for key, value in _cells(snapshot, targets, totals):
            if value is not None:
                column = self._columns.get(key) or self._columns.setdefault(key, array("d", [nan]) * ROWS_MAX)
                column[place] = value

    def _forget_empty(self) -> None:
        """An upstream may be gone for good."""
        for key in [key for key, column in self._columns.items() if all(map(isnan, column))]:
            del self._columns[key]

    def document(self, now: float) -> dict[str, Any]:
        """Columns of equal length: one entry per row, None where an upstream was not there."""
        upstreams = {key[1]: None for key in self._columns if key[0] == "usable"}
        return {
            "version": VERSION,
            "ago_s": [round(now - at_s, 2) for at_s in self._read("at_s")],
            "queued": [int(one) for one in self._read("queued")],
            "totals": {
                key[1]: [0 if isnan(one) else int(one) for one in self._read(*key)]
                for key in self._columns
                if key[0] == "totals"
            },
            "upstreams": {
                name: {field: self._told(field, name) for field in UpstreamRow._fields} for name in upstreams
            },
        }

    def _told(self, field: str, name: str) -> list[float | None]:
        kind = bool if field == "usable" else int if field in WHOLE else float
        return [None if isnan(one) else kind(one) for one in self._read(field, name)]

    def _read(self, *key: str) -> array[float]:
        """A column from its oldest row on; NaN throughout where nobody has had this number yet."""
        column = self._columns.get(key) or array("d", [nan]) * ROWS_MAX
        place = self._noted % ROWS_MAX
        return column[:place] if self._noted <= place else column[place:] + column[:place]


def _cells(
    snapshot: Snapshot, targets: Mapping[str, Target], totals: Mapping[str, int]
) -> Iterator[tuple[tuple[str, ...], float | None]]:
    """Keys and values of one row."""
    yield ("at_s",), snapshot.at_s
    yield ("queued",), sum(one.queued for one in snapshot.classes)
    for name, total in totals.items():
        yield ("totals", name), total
    for one in snapshot.upstreams:
        for field, value in zip(UpstreamRow._fields, _row(one, targets.get(one.name)), strict=True):
            yield (field, one.name), value


def _row(one: UpstreamSnapshot, target: Target | None) -> UpstreamRow:
    return UpstreamRow(
        usable=one.healthy and not one.draining and one.breaker != "open",
        limit=round(one.limit, 2),
        in_flight=one.in_flight,
        ceiling_seats=one.ceiling_seats,
        engine_running=one.telemetry.running if one.telemetry else None,
        itl_ms=_ms(one.sizer.itl_s),
        itl_target_ms=_ms(target.itl_s if target else None),
        ttft_ms=_ms(one.sizer.ttft_s),
        ttft_target_ms=_ms(target.ttft_s if target else None),
    )


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds * 1000, 2)
