"""The sweep's file, `penstock.sweep/1`, and its document: table, curves, memory, findings in words."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from math import floor, log10
from typing import Any

from proxy.loadtest.blocks import Bars, Block, Drawing, Grid, Heading, Lines
from proxy.loadtest.curve import (
    Point,
    best_within,
    findings,
    knee,
    memory_scaling,
    pareto,
    point_of,
    saturation,
    usable,
)
from proxy.loadtest.results import Document, ResultsError, check_results
from proxy.loadtest.slo import Slo
from proxy.loadtest.text import amount, failures
from proxy.loadtest.workload import Workload, public
from proxy.planning.charts import Axis, Chart, Series

SCHEMA = "penstock.sweep/1"
ATTAINMENT = 0.95
WORDS = {"concurrency": "requests under way", "rate": "requests per second", "limit": "limit of the proxy"}
HEADROOM = 1.3
SHARES = {"KV cache, mean": "kv_mean", "GPU busy": "gpu_utilization"}


def fingerprint(url: str, kind: str, workload: Workload, slo: Slo, model: str) -> Document:
    """What must be the same for an interrupted sweep to go on."""
    load = public(workload)
    if kind != "limit":
        load.pop("arrival")
    return {"url": url, "swept": kind, "workload": load, "slo": str(slo) or None, "model": model}


def sweep_document(of: Mapping[str, Any], points: Mapping[float, Document]) -> Document:
    """The file: what was swept, each setting's results, and the findings."""
    rows = [point_of(setting, points[setting]) for setting in sorted(points)]
    return {
        "schema": SCHEMA,
        "of": dict(of),
        "points": [{"setting": setting, "results": points[setting]} for setting in sorted(points)],
        "findings": findings(rows, ATTAINMENT),
    }


def points_of(document: object, name: str) -> tuple[Document, dict[float, Document]]:
    """What was swept and the settings that are done. Raises ResultsError."""
    if not isinstance(document, dict) or document.get("schema") != SCHEMA or not isinstance(document.get("of"), dict):
        raise ResultsError(f"{name}: is no file of penstock sweep; give another --out")
    listed = document.get("points")
    found = {}
    for point in listed if isinstance(listed, list) else []:
        setting = point.get("setting") if isinstance(point, dict) else None
        if not isinstance(setting, int | float):
            raise ResultsError(f"{name}: a point has no setting; the file is damaged")
        found[float(setting)] = check_results(point.get("results"), name)
    return document["of"], found


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Keys of two fingerprints that differ."""
    return [key for key in sorted(before.keys() | now.keys()) if before.get(key) != now.get(key)]


def document_blocks(document: Mapping[str, Any]) -> list[Block]:
    """The sweep as a document."""
    kind = str(document["of"].get("swept"))
    rows = [point_of(point["setting"], point["results"]) for point in document["points"]]
    found = usable(rows)
    blocks: list[Block] = [Grid(_facts(document)), Heading("Points"), Grid(_table(rows, kind))]
    if found:
        blocks += [Heading("What it shows"), Lines(tuple(in_words(found, kind)))]
        blocks.append(Bars("output tokens/s", "tok/s", tuple((f"{p.setting:g}", p.tokens_per_s) for p in found)))
        blocks += [Drawing(chart) for chart in charts(rows, kind)]
        if memory := _memory_rows(found):
            blocks += [Heading("Memory by concurrency"), Grid(memory)]
    told = (failures(point["results"]) + point["results"].get("notes", []) for point in document["points"])
    notes = dict.fromkeys(itertools.chain.from_iterable(told))
    return [*blocks, Heading("Notes"), Lines(tuple(notes))] if notes else blocks


def _facts(document: Mapping[str, Any]) -> tuple[tuple[str, ...], ...]:
    of = document["of"]
    times = [point["results"]["meta"].get("started_at", "") for point in document["points"]]
    rows = [("", "value"), ("swept", WORDS.get(str(of.get("swept")), "")), ("endpoint", str(of.get("url", "")))]
    rows += [("workload", str(of.get("workload", {}).get("name", ""))), ("objectives", str(of.get("slo") or "none"))]
    return (*rows, ("measured", f"{min(times)} to {max(times)}" if times else ""))


def _table(rows: Sequence[Point], kind: str) -> tuple[tuple[str, ...], ...]:
    head = (
        kind,
        "tok/s",
        "req/s",
        "success",
        "TTFT p50",
        "TTFT p99",
        "TPOT p50",
        "TPOT p99",
        "e2e p50",
        "e2e p99",
        "good",
    )
    body = [
        (
            f"{p.setting:g}", amount(p.tokens_per_s), amount(p.requests_per_s), f"{p.success_rate:.1%}",
            amount(p.ttft_p50_ms), amount(p.ttft_p99_ms), amount(p.tpot_p50_ms), amount(p.tpot_p99_ms),
            amount(p.e2e_p50_ms), amount(p.e2e_p99_ms), "-" if p.good_ratio is None else f"{p.good_ratio:.1%}",
        )
        for p in rows
    ]  # fmt: skip
    return (head, *body)


def _memory_rows(points: Sequence[Point]) -> tuple[tuple[str, ...], ...]:
    """Empty where neither engine nor GPU told anything."""
    if not any(p.kv_mean is not None or p.gpu_memory_bytes is not None or p.running is not None for p in points):
        return ()
    head = (
        "setting",
        "running",
        "waiting",
        "KV mean",
        "KV peak",
        "KV per sequence",
        "preemptions",
        "GPU busy",
        "GPU GiB",
    )

    def share(value: float | None, digits: int = 1) -> str:
        return "-" if value is None else f"{value:.{digits}%}"

    body = [
        (
            f"{p.setting:g}", amount(p.running), amount(p.waiting), share(p.kv_mean), share(p.kv_peak),
            share(p.kv_mean / p.running if p.kv_mean is not None and p.running else None, 2),
            "-" if p.preemptions is None else f"{p.preemptions:,}", share(p.gpu_utilization),
            "-" if p.gpu_memory_bytes is None else f"{p.gpu_memory_bytes / 2**30:.1f}",
        )
        for p in points
    ]  # fmt: skip
    return (head, *body)


def in_words(points: Sequence[Point], kind: str) -> list[str]:
    """The findings as sentences."""
    what = WORDS[kind]
    top, full = max(points, key=lambda point: point.tokens_per_s), saturation(points)
    lines = [f"Highest throughput: {amount(top.tokens_per_s)} output tokens/s at {top.setting:g} {what}."]
    quick = min(points, key=lambda point: point.e2e_p50_ms or 0.0)
    lines.append(f"Lowest latency: {amount(quick.e2e_p50_ms)} ms a request (p50) at {quick.setting:g}.")
    if full.setting < top.setting:
        lines.append(f"Nearly all of it is there from {full.setting:g} on; beyond, requests only wait longer.")
    if (bend := knee(points)) is not None:
        at = f"{amount(bend.tokens_per_s)} tokens/s, {amount(bend.e2e_p50_ms)} ms a request"
        lines.append(f"Knee of the curve: {bend.setting:g} {what} ({at}): more load costs more than it gives.")
    if any(point.good_ratio is not None for point in points):
        best = best_within(points, ATTAINMENT)
        lines.append(
            f"Most throughput with {ATTAINMENT:.0%} of requests within the objectives: "
            + (f"{best.setting:g} ({amount(best.tokens_per_s)} tokens/s)." if best else "no setting reaches that.")
        )
    lines.append(f"Pareto set: {', '.join(f'{point.setting:g}' for point in pareto(points))}.")
    if (memory := memory_scaling(points)) is not None:
        size = f" ({amount(memory.tokens_per_sequence)} tokens)" if memory.tokens_per_sequence else ""
        lines.append(
            f"Each running sequence holds {memory.share_per_sequence:.2%} of the KV cache{size}: at these lengths it "
            f"is full at about {memory.sequences_when_full:,.0f} sequences."
        )
    evicted = [point for point in points if point.preemptions]
    if evicted:
        lines.append(f"The engine evicted sequences from {evicted[0].setting:g} on: its KV cache was too small there.")
    failed = [point for point in points if point.success_rate < 1]
    if failed:
        lines.append(f"Requests failed at: {', '.join(f'{point.setting:g}' for point in failed)}.")
    return lines


def charts(rows: Sequence[Point], kind: str) -> list[Chart]:
    """Throughput against latency, and both by setting."""
    points = usable(rows)
    if not points:
        return []
    axis = _settings_axis(points, WORDS[kind])
    made = [_curve(points), _by_setting("Throughput", axis, "tok/s", {"output": _values(points, "tokens_per_s")})]
    for title, key in (("Time to first token", "ttft"), ("Time per output token", "tpot")):
        lines = {name: _values(points, f"{key}_{name}_ms") for name in ("p50", "p99")}
        if all(lines.values()):
            made.append(_by_setting(title, axis, "ms", lines))
    told = {name: _values(points, key) for name, key in SHARES.items()}
    told = {name: line for name, line in told.items() if line}
    return [*made, _by_setting("In use", axis, "share", told)] if told else made


def _curve(points: Sequence[Point]) -> Chart:
    def places(some: Sequence[Point]) -> list[tuple[float, float]]:
        return [(point.e2e_p50_ms or 0.0, point.tokens_per_s) for point in some]

    series = [Series("in order of load", places(points)), Series("Pareto set", places(pareto(points)), dots=True)]
    if (bend := knee(points)) is not None:
        series.append(Series(f"knee: {bend.setting:g}", places([bend]), dots=True))
    across = Axis("ms", 0, top_of(x for x, _ in places(points)))
    up = Axis("tok/s", 0, top_of(y for _, y in places(points)))
    return Chart("Throughput against time per request (p50)", across, up, tuple(series))


def _values(points: Sequence[Point], key: str) -> list[tuple[float, float]]:
    return [(point.setting, value) for point in points if (value := getattr(point, key)) is not None]


def _by_setting(title: str, axis: Axis, unit: str, lines: Mapping[str, list[tuple[float, float]]]) -> Chart:
    top = top_of(y for line in lines.values() for _, y in line)
    return Chart(title, axis, Axis(unit, 0, top), tuple(Series(name, line) for name, line in lines.items()))


def top_of(values: Iterable[float]) -> float:
    """End of an axis from 0, with room for the names above."""
    return max(values, default=0.0) * HEADROOM or 1.0


def _settings_axis(points: Sequence[Point], label: str) -> Axis:
    """Logarithmic where the settings span more than a decade."""
    low, high = points[0].setting, points[-1].setting
    if low > 0 and high / low >= 16:
        return Axis(label, 10.0 ** floor(log10(low)), high * 1.05, logarithmic=True)
    return Axis(label, 0, high * 1.05)
