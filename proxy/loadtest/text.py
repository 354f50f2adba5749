"""Results as text for a terminal: one table of figures, one of latencies, bars, notes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

BAR_CHARS = 32
EIGHTHS = " ▏▎▍▌▋▊▉"
LATENCY_NAMES = {
    "ttft_ms": "TTFT",
    "tpot_ms": "TPOT",
    "itl_ms": "ITL",
    "e2e_ms": "end to end",
    "queue_ms": "queue",
    "gap_max_ms": "longest gap",
}
COLUMNS = ("mean", "p50", "p90", "p95", "p99", "max")

Rows = list[tuple[str, ...]]


def bar(value: float, top: float, chars: int = BAR_CHARS) -> str:
    """A bar as long as the share of `top`, to an eighth of a character."""
    eighths = round(max(0.0, min(1.0, value / top if top > 0 else 0.0)) * chars * 8)
    full, part = divmod(eighths, 8)
    return ("█" * full + (EIGHTHS[part] if part else "")).ljust(chars)


def amount(value: float | None, digits: int = 4) -> str:
    """About four digits, thousands apart."""
    if value is None:
        return "-"
    whole = len(str(int(abs(value))))
    return f"{value:,.{max(0, min(2, digits - whole))}f}"


def count(value: float | None) -> str:
    return "-" if value is None else f"{value:,.0f}"


def aligned(rows: Iterable[Sequence[str]]) -> str:
    """The first column to the left, all others to the right."""
    rows = list(rows)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = (
        "  ".join(cell.rjust(width) if index else cell.ljust(width) for index, (cell, width) in enumerate(pairs))
        for pairs in (list(zip(row, widths, strict=True)) for row in rows)
    )
    return "\n".join(line.rstrip() for line in lines)


def figures(total: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The main figures and their values."""
    steady = total["steady"]
    rows = [
        ("requests", count(total["requests"])),
        ("success", f"{total['success_rate']:.2%}"),
        ("requests/s", amount(total["requests_per_s"])),
        ("requests/s, full load", amount(steady["requests_per_s"])),
        ("output tokens/s", amount(total["output_tokens_per_s"])),
        ("total tokens/s", amount(total["total_tokens_per_s"])),
        ("output tokens/s, full load", amount(steady["output_tokens_per_s"])),
    ]
    goodput = total.get("goodput")
    if goodput:
        rows.append((f"good ({goodput['slo']})", f"{goodput['ratio']:.2%}, {amount(goodput['requests_per_s'])} req/s"))
    return rows


def latency_rows(total: Mapping[str, Any]) -> Rows:
    rows: Rows = [("ms", *COLUMNS)]
    for key, name in LATENCY_NAMES.items():
        found = total.get(key)
        if found:
            rows.append((name, *(amount(found[column]) for column in COLUMNS)))
    return rows


def flow_rows(flows: Mapping[str, Mapping[str, Any]]) -> Rows:
    rows: Rows = [("flow", "requests", "success", "req/s", "tok/s", "TTFT p50", "TTFT p99", "TPOT p50", "TPOT p99")]
    for name, flow in flows.items():
        ttft, tpot = flow.get("ttft_ms") or {}, flow.get("tpot_ms") or {}
        latencies = (amount(one.get(key)) for one in (ttft, tpot) for key in ("p50", "p99"))
        rates = (amount(flow["requests_per_s"]), amount(flow["output_tokens_per_s"]))
        rows.append((name, count(flow["requests"]), f"{flow['success_rate']:.1%}", *rates, *latencies))
    return rows


def failures(document: Mapping[str, Any]) -> list[str]:
    """One line for each kind of ending but success, with an example."""
    lines = []
    for ending, times in document["total"]["endings"].items():
        if ending != "success":
            example = document.get("examples", {}).get(ending, "")
            lines.append(f"{ending}: {times:,}" + (f", for example: {example}" if example else ""))
    return lines


def engine_lines(engine: Mapping[str, Any] | None) -> list[str]:
    """What the engine told, if it did."""
    if not engine:
        return []
    lines = []
    shares = {"kv_usage": "KV cache in use", "gpu_utilization": "GPU busy"}
    numbers = {"running": "running", "waiting": "waiting in the engine", "limit": "limit", "queued": "queued"}
    for key, name in shares.items():
        if key in engine:
            lines.append(f"{name}: mean {engine[key]['mean']:.1%}, peak {engine[key]['peak']:.1%}")
    for key, name in numbers.items():
        if key in engine:
            lines.append(f"{name}: mean {amount(engine[key]['mean'])}, peak {amount(engine[key]['peak'])}")
    if "gpu_memory_bytes" in engine:
        lines.append(f"GPU memory: peak {engine['gpu_memory_bytes']['peak'] / 2**30:.1f} GiB")
    if "preemptions" in engine:
        lines.append(f"preemptions: {engine['preemptions']:,}")
    return lines


def summary_text(document: Mapping[str, Any]) -> str:
    """The whole result of one run."""
    meta, total = document["meta"], document["total"]
    head = f"{document['workload']['name']} at {meta['url']}, model {meta['model'] or '(by flow)'}"
    parts = [head, aligned(figures(total))]
    if len(latency_rows(total)) > 1:
        parts.append(aligned(latency_rows(total)))
    if len(document["flows"]) > 1:
        parts.append(aligned(flow_rows(document["flows"])))
    for title, lines in (
        ("not successful", failures(document)),
        ("engine", engine_lines(document.get("engine"))),
        ("notes", document.get("notes", [])),
    ):
        if lines:
            parts.append("\n".join([title, *(f"  {line}" for line in lines)]))
    return "\n\n".join(parts)
