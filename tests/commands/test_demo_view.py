from __future__ import annotations

from typing import Any

import pytest

from proxy.commands.demo_view import line, screen


def state(**upstream: Any) -> dict[str, Any]:
    one = {"name": "sim", "limit": 8.0, "limit_reason": None, "in_flight": 4, "engine_running": 4}
    return {
        "upstreams": [one | {"itl_ms": 25.0, "itl_target_ms": 50.0} | upstream],
        "classes": [
            {"name": "high", "queued": 3, "oldest_wait_s": 1.25},
            {"name": "low", "queued": 10, "oldest_wait_s": 0.0},
        ],
        "limit_changes": [
            {"ago_s": 9.0, "before": 7.0, "after": 8.0, "reason": "grow"},
            {"ago_s": 2.0, "before": 8.0, "after": 6.0, "reason": "latency"},
        ],
        "outcomes": {"success": 5, "queue_full": 1, "queue_timeout": 2},
    }


@pytest.mark.parametrize(
    ("upstream", "text"),
    [
        (
            {"limit_reason": "latency"},
            "   7 s; sim: limit 8.0 (latency), in flight 4, ITL 25 of 50 ms; queue 13; done 5, refused 3",
        ),
        ({"itl_ms": None}, "   7 s; sim: limit 8.0, in flight 4, ITL - of 50 ms; queue 13; done 5, refused 3"),
    ],
)
def test_the_line_sums_up_the_state(upstream: dict[str, Any], text: str) -> None:
    assert line(state(**upstream), 7.4) == text


def test_the_screen_draws_bars_on_one_scale_and_the_newest_changes_first() -> None:
    rows = screen(state(), 7.4, 120).splitlines()
    bars = {row.split()[0]: row.count("#") for row in rows if "." * 3 in row or "#" * 3 in row}
    assert bars == {"limit": 40, "in": 20, "ITL": 10, "high": 6, "low": 20}
    changes = rows[rows.index("last limit changes") + 1 :]
    assert [row.split() for row in changes] == [
        ["ago", "from", "to", "reason"],
        ["2", "s", "8.0", "6.0", "latency"],
        ["9", "s", "7.0", "8.0", "grow"],
    ]
    assert len(screen(state(itl_ms=None, itl_target_ms=None, limit=0, in_flight=0, engine_running=None), 0, 1)) > 0
