"""Writes docs/control.md and its pictures from results: the same results give the same bytes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import inf
from typing import Any

from proxy.laboratory.lab import Moment
from proxy.laboratory.picture import as_svg, panels
from tests.benchmarks.scenarios.laws import LADDER
from tests.benchmarks.scenarios.notes import CLOSING, INTRODUCTION, MISSED
from tests.benchmarks.scenarios.scenario import Measure, Scenario
from tests.benchmarks.scenarios.worlds import OURS, TARGET

DRAWN = ("fixed", "seed", "aimd", "gradient2", "dynamic")  # beside ours
STATIC_MAX = 8  # more of them would be a table of numbers that say nothing
NAMES = {**LADDER, OURS: "Penstock"}
Results = Mapping[str, Any]


def worst(measure: Measure, seeds: Mapping[str, Mapping[str, float]]) -> float:
    """Over the seeds of one law."""
    return measure.worst([numbers[measure.name] for numbers in seeds.values()])


def best_other(measure: Measure, laws: Mapping[str, Any]) -> tuple[str, float] | None:
    found: tuple[str, float] | None = None
    for law, seeds in laws.items():
        value = worst(measure, seeds)
        if law != OURS and (found is None or measure.better(value, found[1])):
            found = law, value
    return found


def goal(measure: Measure) -> str:
    low, high = measure.at_least, measure.at_most
    if low is not None and high is not None:
        return f"{measure.text(low)} to {measure.text(high)}"
    if low is not None:
        return f"≥ {measure.text(low)}"
    return f"≤ {measure.text(high)}" if high is not None else ""


def verdict(measure: Measure, value: float) -> str:
    return {None: "", True: "yes", False: "**no**"}[measure.reached(value)]


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return [f"| {' | '.join(head)} |", f"|{' --- |' * len(head)}", *(f"| {' | '.join(row)} |" for row in rows), ""]


def overview(scenarios: Sequence[Scenario], results: Results) -> list[str]:
    rows = []
    for one in scenarios:
        seeds = results[one.key]["laws"][OURS]
        judged = [(m, worst(m, seeds)) for m in one.measures if m.reached(0.0) is not None]
        missed = [m.words for m, value in judged if not m.reached(value)]
        rows.append(
            (
                f"[{one.key}](#{anchor(one)})",
                one.title,
                f"{len(judged) - len(missed)} of {len(judged)}",
                "; ".join(missed),
            )
        )
    return table(("", "scenario", "thresholds reached", "missed"), rows)


def heading(one: Scenario) -> str:
    return f"{one.key}: {one.title}"


def anchor(one: Scenario) -> str:
    """As GitHub makes it of the heading."""
    kept = "".join(letter for letter in heading(one).lower() if letter.isalnum() or letter in " -_")
    return kept.replace(" ", "-")


def section(one: Scenario, result: Results) -> list[str]:
    laws = result["laws"]
    lines = [f"## {heading(one)}", "", one.text, ""]
    if 0 < len(result["static"]) <= STATIC_MAX:
        seats = ", ".join(f"{name}: {best['seats']:.0f}" for name, best in result["static"].items())
        lines += [
            f"Best static limit: {seats}."
            if len(result["static"]) > 1
            else f"Best static limit: {seats.split(': ')[1]}.",
            "",
        ]
    several = len(laws) > 1
    rows = []
    for measure in one.measures:
        values = [numbers[measure.name] for numbers in laws[OURS].values()]
        value = measure.worst(values)
        each = ", ".join(measure.text(each) for each in values)
        row = [measure.words, goal(measure), f"**{measure.text(value)}**", verdict(measure, value), each]
        if several:
            other = best_other(measure, laws)
            row.append("" if other is None else f"{measure.text(other[1])} ({NAMES[other[0]]})")
        rows.append(row)
    head = ["", "threshold", "Penstock, worst seed", "reached", "each seed", *(["best of the others"] * several)]
    lines += table(head, rows)
    if several:
        lines += ladder(one, laws)
    if one.picture:
        lines += [f"![{one.title}](control/{one.key}.svg)", ""]
    return lines + reasons(one, laws[OURS])


def reasons(one: Scenario, seeds: Mapping[str, Mapping[str, float]]) -> list[str]:
    """Why the missed thresholds are missed. Measures of one reason are named together."""
    told: dict[str, list[str]] = {}
    for measure in one.measures:
        if measure.reached(worst(measure, seeds)) is False:
            reason = MISSED.get(one.key, {}).get(measure.name, "The reason is not known.")
            told.setdefault(reason, []).append(measure.words)
    return [part for reason, words in told.items() for part in (f"*Missed: {'; '.join(words)}.* {reason}", "")]


def ladder(one: Scenario, laws: Mapping[str, Any]) -> list[str]:
    order = [*(law for law in LADDER if law in laws), OURS]
    rows = []
    for law in order:
        cells = []
        for measure in one.measures:
            value = worst(measure, laws[law])
            text = measure.text(value)
            cells.append(f"**{text}**" if law == OURS else text)
        rows.append([NAMES[law], *cells])
    return [
        "<details><summary>Every law, worst seed</summary>",
        "",
        *table(["law", *(m.words for m in one.measures)], rows),
        "</details>",
        "",
    ]


def document(scenarios: Sequence[Scenario], results: Results) -> str:
    """The whole page."""
    lines = [*INTRODUCTION, *overview(scenarios, results)]
    for one in scenarios:
        lines += section(one, results[one.key])
    lines += [*CLOSING]
    text = "\n".join(lines).rstrip() + "\n"
    while "\n\n\n" in text:
        text = text.replace("\n\n\n", "\n\n")
    return text


def picture(one: Scenario, result: Results) -> str:
    """Ours against some of the ladder, on the first seed."""
    laws = [law for law in (OURS, *DRAWN) if law in result["series"]]
    runs = [[moment(row) for row in result["series"][law]] for law in laws]
    best = max((found["seats"] for found in result["static"].values()), default=None)
    target = one.worlds[one.picture].target if one.picture else TARGET
    return as_svg([NAMES[law] for law in laws], panels(runs, target.itl_s, best))


def moment(row: Sequence[float]) -> Moment:
    at_s, limit, in_flight, waiting, queued, itl_s = row
    return Moment(at_s, 0, "engine", min(limit, inf), int(in_flight), 0, int(waiting), int(queued), itl_s, 0.0)
