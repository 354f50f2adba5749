"""Two runs side by side: what changed, by how much, and why, from their results alone.

Little's law gives what no client sees: mean number of requests that decode at once = output tokens per second * mean
time per output token (J. D. C. Little, "A proof for the queuing formula L = lambda W", 1961). With batch B and step
time T, throughput is B / T: so a change of throughput splits into a change of batch and one of step time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from proxy.loadtest.blocks import Bars, Block, Drawing, Grid, Heading, Lines
from proxy.loadtest.results import LATENCIES
from proxy.loadtest.text import LATENCY_NAMES, amount, engine_lines, failures
from proxy.planning.charts import Axis, Chart, Series

NOTABLE = 0.03  # changes below are called none
SHOWN = ("p50", "p90", "p95", "p99")
HEADROOM = 1.25  # above the highest line, for the names
PERCENTS = {"p50": 50.0, "p90": 90.0, "p95": 95.0, "p99": 99.0}

Document = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Change:
    """One figure of both runs. `better` is +1 where more is better, -1 where less is, 0 where neither."""

    name: str
    before: float | None
    after: float | None
    better: int = 0
    kind: str = "amount"  # or count, or share

    @property
    def ratio(self) -> float | None:
        return self.after / self.before if self.before and self.after is not None else None

    def shown(self) -> tuple[str, str, str, str]:
        return self.name, self._value(self.before), self._value(self.after), change_text(self.ratio)

    def _value(self, value: float | None) -> str:
        if value is None or self.kind == "amount":
            return amount(value)
        return f"{value:.2%}" if self.kind == "share" else f"{value:,.0f}"


def change_text(ratio: float | None) -> str:
    """A change in percent; as a factor too where that says more."""
    if ratio is None:
        return "-"
    percent = f"{(ratio - 1) * 100:+.1f}%"
    return f"{percent}, x{ratio:.2f}" if ratio >= 2 or 0 < ratio <= 0.5 else percent


def latency(document: Document, key: str, column: str) -> float | None:
    found = document["total"].get(key)
    return found.get(column) if found else None


def changes(before: Document, after: Document) -> list[Change]:
    """Every figure that both runs have."""

    def of(name: str, *path: str, better: int = 0, kind: str = "amount") -> Change:
        values: list[Any] = [before["total"], after["total"]]
        for key in path:
            values = [value.get(key) if isinstance(value, Mapping) else None for value in values]
        return Change(name, values[0], values[1], better, kind)

    rows = [
        of("requests", "requests", kind="count"),
        of("success rate", "success_rate", better=1, kind="share"),
        of("throughput (req/s)", "requests_per_s", better=1),
        of("throughput (output tok/s)", "output_tokens_per_s", better=1),
        of("throughput (total tok/s)", "total_tokens_per_s", better=1),
        of("output tok/s at full load", "steady", "output_tokens_per_s", better=1),
        of("goodput (req/s)", "goodput", "requests_per_s", better=1),
        of("good requests", "goodput", "ratio", better=1, kind="share"),
    ]
    for key in LATENCIES:
        rows += [of(f"{LATENCY_NAMES[key]} {column} (ms)", key, column, better=-1) for column in SHOWN]
    return [row for row in rows if row.before is not None and row.after is not None]


HEADLINES = (
    "throughput (req/s)", "throughput (output tok/s)", "goodput (req/s)", "TTFT p50 (ms)", "TPOT p50 (ms)",
    "TPOT p99 (ms)", "end to end p50 (ms)",
)  # fmt: skip


def decoding(document: Document) -> float | None:
    """Mean number of requests that decode at once, by Little's law at full load."""
    tpot_ms = latency(document, "tpot_ms", "mean")
    tokens_per_s = document["total"]["steady"]["output_tokens_per_s"] or document["total"]["output_tokens_per_s"]
    return tokens_per_s * tpot_ms / 1e3 if tpot_ms and tokens_per_s else None


def analysis(before: Document, after: Document, names: tuple[str, str]) -> list[str]:
    """What moved and why, in plain words."""
    rows = {row.name: row for row in changes(before, after)}
    lines = _throughput(rows, before, after)
    lines += _batch(before, after, names)
    lines += _first_token(rows, before, after)
    lines += _per_token(rows)
    for name in ("good requests", "success rate"):
        row = rows.get(name)
        if row is not None and row.before != row.after:
            lines.append(f"The {name.replace('good requests', 'share of good requests')} {_moved(row)}.")
    return lines or ["Nothing moved by more than 3 %."]


def _moved(row: Change) -> str:
    ratio = row.ratio
    word = "moved" if ratio is None else "rose" if ratio > 1 else "fell"
    _, before, after, change = row.shown()
    return f"{word} from {before} to {after} ({change})" if ratio is not None else f"{word} from {before} to {after}"


def notable(row: Change | None) -> bool:
    return row is not None and row.ratio is not None and abs(row.ratio - 1) >= NOTABLE


def _throughput(rows: Mapping[str, Change], before: Document, after: Document) -> list[str]:
    lines = []
    tokens, requests = rows["throughput (output tok/s)"], rows["throughput (req/s)"]
    if notable(tokens):
        lines.append(f"Token throughput {_moved(tokens)}.")
    rates = [_rate(document) for document in (before, after)]
    if notable(requests):
        lines.append(f"Request throughput {_moved(requests)}.")
    elif all(rates):
        lines.append(
            "Request throughput hardly moved because requests arrive at a given rate: "
            f"{amount(rates[1])} a second are sent, and both runs serve what comes. Look at tokens and latency instead."
        )
    for document, rate, which in zip((before, after), rates, ("first", "second"), strict=True):
        served = document["total"]["steady"]["requests_per_s"]
        if rate and served and served < 0.9 * rate:
            lines.append(
                f"In the {which} run only {amount(served)} of {amount(rate)} requests a second were served at full "
                "load: it is saturated, its queue grows as long as the test lasts, and its TTFT says how long that was."
            )
    return lines


def _rate(document: Document) -> float | None:
    arrival = document["workload"].get("arrival", {})
    return arrival.get("rate") if arrival.get("process") in ("poisson", "constant", "gamma") else None


def _batch(before: Document, after: Document, names: tuple[str, str]) -> list[str]:
    batches = decoding(before), decoding(after)
    steps = latency(before, "tpot_ms", "mean"), latency(after, "tpot_ms", "mean")
    if batches[0] is None or batches[1] is None or not steps[0] or not steps[1]:
        return []
    grown, slower = batches[1] / batches[0], steps[1] / steps[0]
    if abs(grown - 1) < NOTABLE and abs(slower - 1) < NOTABLE:
        return []
    lines = [
        f"By Little's law {amount(batches[0])} requests were decoding at once in {names[0]} and {amount(batches[1])} "
        f"in {names[1]}: the batch is x{grown:.2f}, a step takes x{slower:.2f} as long, "
        f"so tokens come x{grown / slower:.2f} as fast."
    ]
    if grown > 1 + NOTABLE and slower < grown:
        lines.append(
            "A step reads all weights once, however many requests share it; a larger batch adds only their own cache "
            "reads and arithmetic. That is why throughput grows faster than the time per token while memory bandwidth "
            "is the bound."
        )
    elif grown > 1 + NOTABLE:
        lines.append("The larger batch bought nothing: the engine is past its knee, and each request only got slower.")
    elif slower > 1 + NOTABLE:
        lines.append("Steps are slower at the same batch: another engine setting, longer contexts or other work.")
    return lines


def _first_token(rows: Mapping[str, Change], before: Document, after: Document) -> list[str]:
    row = rows.get("TTFT p50 (ms)")
    if row is None or not notable(row):
        return []
    lines = [f"Time to first token (p50) {_moved(row)}."]
    waits = _waiting(before) or 0.0, _waiting(after) or 0.0
    if max(waits) > 1:
        lines.append(
            f"Most of it is waiting for a place in the batch: about {amount(waits[0])} requests waited at any time in "
            f"the first run, {amount(waits[1])} in the second."
        )
    return lines


def _waiting(document: Document) -> float | None:
    """Requests before their first token, by Little's law."""
    ttft_ms, rate = latency(document, "ttft_ms", "mean"), document["total"]["steady"]["requests_per_s"]
    return rate * ttft_ms / 1e3 if ttft_ms and rate else None


def _per_token(rows: Mapping[str, Change]) -> list[str]:
    row, whole = rows.get("TPOT p50 (ms)"), rows.get("end to end p50 (ms)")
    lines = []
    if row is not None and notable(row):
        lines.append(f"Time per output token (p50) {_moved(row)}: this is what a reader sees of the batch.")
    if whole is not None and notable(whole):
        lines.append(f"A whole request (p50) {_moved(whole)}.")
    return lines


def caveats(before: Document, after: Document) -> list[str]:
    """Reasons not to compare, and what is impossible inside one run."""
    lines = []
    for key in ("arrival", "flows", "seed", "duration_s"):
        pair = before["workload"].get(key), after["workload"].get(key)
        if pair[0] != pair[1]:
            lines.append(f"WARNING the runs differ in {key}: {_short(pair[0])} against {_short(pair[1])}")
    if before["meta"].get("model") != after["meta"].get("model"):
        lines.append("WARNING the runs asked for different models")
    for which, document in (("first", before), ("second", after)):
        if document["meta"].get("interrupted"):
            lines.append(f"WARNING the {which} run was interrupted")
        lines += [f"WARNING the {which} run is inconsistent: {line}" for line in inconsistencies(document)]
    return lines


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 60 else text[:57] + "..."


def inconsistencies(document: Document) -> list[str]:
    """What cannot be: a first token after the end, or a request faster than its own tokens."""
    lines = []
    streamed = document["total"].get("ttft_ms"), document["total"].get("e2e_ms")
    if streamed[0] and streamed[1] and streamed[0]["count"] == streamed[1]["count"]:
        late = [column for column in SHOWN if streamed[0][column] > streamed[1][column] * 1.001]
        if late:
            lines.append(f"TTFT {', '.join(late)} exceeds the end-to-end time of the same requests")
    return lines


def name_of(document: Document, file: str) -> str:
    return str(document["meta"].get("label") or file)


def comparison(before: Document, after: Document, names: tuple[str, str]) -> list[Block]:
    """The whole document but for its title."""
    rows = changes(before, after)
    heads = [row.shown() for row in rows if row.name in HEADLINES]
    lines = caveats(before, after)
    blocks: list[Block] = [_facts(before, after, names), Heading("Summary"), Grid((("", *names, "change"), *heads))]
    blocks += [Lines(tuple(lines))] if lines else []
    blocks += [Heading("What moved, and why"), Lines(tuple(analysis(before, after, names)))]
    blocks += [Heading("Side by side"), *bars(rows, names), *(Drawing(one) for one in charts(before, after, names))]
    blocks += [Heading("Raw metrics"), Grid((("metric", *names, "change"), *(row.shown() for row in rows)))]
    for name, document in zip(names, (before, after), strict=True):
        told = [*failures(document), *engine_lines(document.get("engine")), *document.get("notes", [])]
        blocks += [Heading(f"Notes on {name}"), Lines(tuple(told))] if told else []
    return blocks


def _facts(before: Document, after: Document, names: tuple[str, str]) -> Grid:
    def facts(document: Document) -> dict[str, str]:
        meta, workload = document["meta"], document["workload"]
        arrival = workload.get("arrival", {})
        under_way, rate = arrival.get("concurrency"), arrival.get("rate")
        load = f", {under_way} under way" if under_way else f", {rate:g} req/s" if rate else ""
        return {
            "workload": str(workload.get("name", "")),
            "load": f"{arrival.get('process', '')}{load}",
            "model": str(meta.get("model", "")),
            "endpoint": str(meta.get("url", "")),
            "measured": str(meta.get("started_at", "")),
        }

    told = facts(before), facts(after)
    return Grid((("", *names), *((key, told[0][key], told[1][key]) for key in told[0])))


def bars(rows: Sequence[Change], names: tuple[str, str]) -> list[Bars]:
    """The headline figures on one scale each."""
    shown = [row for row in rows if row.name in HEADLINES]
    return [Bars(row.name, row.name.rstrip(")").rpartition("(")[2].split()[-1], _pair(names, row)) for row in shown]


def _pair(names: tuple[str, str], row: Change) -> tuple[tuple[str, float], ...]:
    return (names[0], row.before or 0.0), (names[1], row.after or 0.0)


def charts(before: Document, after: Document, names: tuple[str, str]) -> list[Chart]:
    """Latency by percentile, where both runs have it."""
    found = []
    for key in ("ttft_ms", "tpot_ms", "e2e_ms"):
        pair = [document["total"].get(key) for document in (before, after)]
        if not all(pair):
            continue
        series = tuple(
            Series(name, [(PERCENTS[column], one[column]) for column in SHOWN])
            for name, one in zip(names, pair, strict=True)
        )
        top = max(value for one in series for _, value in one.data) * HEADROOM or 1.0
        axis = Axis("percentile of requests", 50, 100)
        found.append(Chart(f"{LATENCY_NAMES[key]} by percentile", axis, Axis("ms", 0, top), series))
    return found


def single(document: Document) -> list[Block]:
    """One run as a document."""
    total = document["total"]
    columns = ("mean", *SHOWN, "max")
    rows: list[tuple[str, ...]] = [("ms", *columns)]
    rows += [
        (LATENCY_NAMES[key], *(amount(found[column]) for column in columns))
        for key in LATENCIES
        if (found := total.get(key))
    ]
    main = (
        ("", "value"),
        ("requests", f"{total['requests']:,}"),
        ("success", f"{total['success_rate']:.2%}"),
        ("requests/s", amount(total["requests_per_s"])),
        ("output tokens/s", amount(total["output_tokens_per_s"])),
        ("output tokens/s at full load", amount(total["steady"]["output_tokens_per_s"])),
    )
    blocks: list[Block] = [Heading("Summary"), Grid(main), Heading("Latency"), Grid(tuple(rows))]
    told = [*failures(document), *engine_lines(document.get("engine")), *document.get("notes", [])]
    told += [f"WARNING inconsistent: {line}" for line in inconsistencies(document)]
    return [*blocks, Heading("Notes"), Lines(tuple(told))] if told else blocks
