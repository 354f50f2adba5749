"""The last ten minutes, one row a second: what the status page draws, also for whoever opens it after the event.

Each row holds a few numbers per upstream and the totals since start, so that a reader forms rates over any stretch.
600 rows of one upstream are some 0.6 MB.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
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


class Row(NamedTuple):
    """Everything at one moment of the monotonic clock."""

    at_s: float
    queued: int
    totals: Mapping[str, int]
    upstreams: Mapping[str, UpstreamRow]


class History:
    """Rows of `ROWS_MAX` seconds, oldest first."""

    def __init__(self) -> None:
        self._rows: deque[Row] = deque(maxlen=ROWS_MAX)

    def note(self, snapshot: Snapshot, targets: Mapping[str, Target], totals: Mapping[str, int]) -> None:
        """Add the row of this moment; called once a second."""
        queued = sum(one.queued for one in snapshot.classes)
        upstreams = {one.name: _row(one, targets.get(one.name)) for one in snapshot.upstreams}
        self._rows.append(Row(snapshot.at_s, queued, totals, upstreams))

    def document(self, now: float) -> dict[str, Any]:
        """Columns of equal length: one entry per row, None where an upstream was not there."""
        rows = self._rows
        names = {name: None for row in rows for name in row.upstreams}
        keys = {key: None for row in rows for key in row.totals}
        return {
            "version": VERSION,
            "ago_s": [round(now - row.at_s, 2) for row in rows],
            "queued": [row.queued for row in rows],
            "totals": {key: [row.totals.get(key, 0) for row in rows] for key in keys},
            "upstreams": {
                name: {
                    field: [None if (one := row.upstreams.get(name)) is None else one[place] for row in rows]
                    for place, field in enumerate(UpstreamRow._fields)
                }
                for name in names
            },
        }


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
