"""The table of what was measured: medians over cycles, and the median of the ratios within a cycle."""

from __future__ import annotations

from statistics import median
from typing import Any

from tests.benchmarks.data_path.cases import Case

OURS = ("nginx", "penstock")
FEW = 300  # requests of a window, below which a peer's cell says how many there were
FOOTNOTE = "\nIn parentheses: fewer clients than the case has, and requests in the window where they are few."

Cycles = list[dict[str, Any]]  # of one case: what was measured, by contestant


def ratio(cycles: Cycles, to: str) -> float:
    return float(median(one["penstock"]["us"] / one[to]["us"] for one in cycles))


def reach(case: Case, measured: list[dict[str, Any]]) -> str:
    """What a peer's figure stands on, where that is less than the row's name promises."""
    clients, count = measured[0]["connections"], median(one[case.unit] for one in measured)
    words = [f"{clients} {'streams' if case.streaming else 'connections'}"] if clients < case.connections else []
    words += [f"{count:.0f} {case.unit}"] if count < FEW else []
    return f" ({', '.join(words)})" if words else ""


def peer_cells(case: Case, cycles: Cycles, name: str) -> str:
    measured, to = [one[name] for one in cycles], ratio(cycles, name)
    cost = f"{median(one['us'] for one in measured):.0f}{reach(case, measured)}"
    return f" {cost} | {to:.2f} |" if to >= 0.095 else f" {cost} | {to:.2g} |"


def row(case: Case, cycles: Cycles, peers: list[str]) -> str:
    sides = [[one[name] for one in cycles] for name in OURS]
    costs = " | ".join(f"{median(one['us'] for one in side):.0f}" for side in sides)
    key = "transit_us" if case.streaming else "latency_us"
    spans = " | ".join(" / ".join(f"{median(one[key][at] for one in side):,.0f}" for at in (0, 2)) for side in sides)
    return f"| {case.name} | {costs} | {ratio(cycles, 'nginx'):.1f} | {case.unit[:-1]} | {spans} |" + "".join(
        peer_cells(case, cycles, name) for name in peers
    )


def show(results: dict[str, Cycles], cases: list[Case]) -> str:
    """A Markdown table."""
    peers = [name for name in results[cases[0].name][0] if name not in OURS]
    lines = [
        "| case | nginx us | penstock us | ratio | per | nginx p50 / p99 us | penstock p50 / p99 us |"
        + "".join(f" {name} us | penstock to it |" for name in peers),
        "|---|---:|---:|---:|---|---:|---:|" + "---:|---:|" * len(peers),
    ]
    for case in cases:
        cycles = results[case.name]
        lines.append(row(case, cycles, peers))
        errors = {name: sum(one[name]["errors"] for one in cycles) for name in cycles[0]}
        if told := ", ".join(f"{count} of {name}" for name, count in errors.items() if count):
            lines.append(f"| errors: {told} | | | | | | |" + " | |" * len(peers))
    noted = any(reach(case, [one[name] for one in results[case.name]]) for case in cases for name in peers)
    return "\n".join(lines) + FOOTNOTE * noted
