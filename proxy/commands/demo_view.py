"""What `demo` shows: the state document of the admin listener as one line, or as a small screen."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from proxy.commands.base import table

State = Mapping[str, Any]
BAR = 40
HOME_AND_CLEAR = "\x1b[H\x1b[J"


def line(state: State, elapsed_s: float) -> str:
    parts = [
        f"{elapsed_s:4.0f} s",
        *(
            f"{one['name']}: limit {one['limit']:.1f}{_reason(one)}, in flight {one['in_flight']}, "
            f"ITL {_ms(one['itl_ms'])} of {_ms(one['itl_target_ms'])} ms"
            for one in state["upstreams"]
        ),
        f"queue {_queued(state)}",
        f"done {_done(state)}, refused {_refused(state)}",
    ]
    return "; ".join(parts)


def screen(state: State, elapsed_s: float, duration_s: float) -> str:
    """Bars share one scale per upstream: the larger of limit, ceiling and in flight."""
    rows = [f"Penstock demo, {elapsed_s:.0f} of {duration_s:.0f} s, simulated engine. Ctrl-C ends it.", ""]
    for one in state["upstreams"]:
        top = max(one["limit"], one["in_flight"], one["engine_running"] or 0, 1)
        rows += [
            f"upstream {one['name']}",
            f"  limit      {_bar(one['limit'], top)} {one['limit']:.1f}{_reason(one)}",
            f"  in flight  {_bar(one['in_flight'], top)} {one['in_flight']}",
            f"  ITL        {_bar(one['itl_ms'] or 0, 2 * (one['itl_target_ms'] or 1))} "
            f"{_ms(one['itl_ms'])} ms, target {_ms(one['itl_target_ms'])} ms (middle of the bar)",
            "",
        ]
    rows += [f"queue, {_queued(state)} waiting"]
    rows += [
        f"  {one['name']:<10} {_bar(one['queued'], max(20, _queued(state)))} {one['queued']}, "
        f"oldest {one['oldest_wait_s']:.1f} s"
        for one in state["classes"]
    ]
    changes = [("  ago", "from", "to", "reason")] + [
        (f"  {one['ago_s']:.0f} s", f"{one['before']:.1f}", f"{one['after']:.1f}", one["reason"])
        for one in sorted(state["limit_changes"], key=lambda one: one["ago_s"])[:5]
    ]
    rows += ["", f"done {_done(state)}, refused {_refused(state)}", "", "last limit changes", table(changes)]
    return "\n".join(rows)


def _bar(value: float, top: float) -> str:
    filled = min(BAR, max(0, round(BAR * value / top)))
    return "#" * filled + "." * (BAR - filled)


def _ms(value: float | None) -> str:
    return "-" if value is None else f"{value:.0f}"


def _reason(upstream: State) -> str:
    return f" ({upstream['limit_reason']})" if upstream["limit_reason"] else ""


def _queued(state: State) -> int:
    return sum(one["queued"] for one in state["classes"])


def _done(state: State) -> int:
    return int(state["outcomes"].get("success", 0))


def _refused(state: State) -> int:
    return sum(count for outcome, count in state["outcomes"].items() if outcome != "success")
