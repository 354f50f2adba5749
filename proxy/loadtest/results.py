"""The results file of one run: `penstock.loadtest/1`, JSON, times in seconds or as the key's last word says.

Keys may be added within a version; none is renamed or removed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from proxy.loadtest.observations import Observation, condensed
from proxy.loadtest.records import Record
from proxy.loadtest.slo import Slo
from proxy.loadtest.stats import Sketch, Tally, examples, metrics, sketch_summary
from proxy.loadtest.workload import Workload, public

SCHEMA = "penstock.loadtest/1"
LAG_P99_MAX_MS = 5.0
SEND_DELAY_P99_MAX_MS = 10.0
CPU_SHARE_MAX = 0.85
LATENCIES = ("ttft_ms", "tpot_ms", "itl_ms", "e2e_ms", "queue_ms", "gap_max_ms")

Document = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Results:
    """`document` is what the file holds; `records` are the raw requests, warm-up left out."""

    document: Document
    records: Sequence[Record] = field(default=(), repr=False)

    @property
    def total(self) -> Document:
        found: Document = self.document["total"]
        return found


@dataclass(frozen=True, slots=True)
class Generator:
    """How well the generator kept up."""

    lag: Sketch
    send_delay: Sketch
    cpu_share: float


def results_of(
    tally: Tally,
    workload: Workload,
    slo: Slo,
    meta: Mapping[str, object],
    generator: Generator,
    seen: Sequence[Observation] = (),
    notes: Sequence[str] = (),
) -> Results:
    """Everything that a run has shown. `meta` says where, when and with what."""
    steady_s = max(0.0, tally.until_s - tally.from_s)
    whole = tally.whole()
    total = metrics(whole, slo, tally.from_s, steady_s)
    flows = {name: metrics(flow, slo, tally.from_s, steady_s) for name, flow in sorted(tally.flows.items())}
    told = _generator(generator)
    document = {
        "schema": SCHEMA,
        "meta": dict(meta),
        "workload": public(workload),
        "slo": str(slo) or None,
        "total": total,
        "flows": flows,
        "engine": condensed(seen, tally.from_s, tally.until_s),
        "generator": told,
        "examples": examples(whole.records),
        "notes": [*notes, *_notes(total, told, workload)],
    }
    return Results(document, whole.records)


def _generator(generator: Generator) -> dict[str, object]:
    return {
        "cpu_share": round(generator.cpu_share, 4),
        "lag_ms": sketch_summary(generator.lag),
        "send_delay_ms": sketch_summary(generator.send_delay),
    }


def _notes(total: Mapping[str, Any], generator: Mapping[str, Any], workload: Workload) -> list[str]:
    notes = []
    if workload.closed:
        notes.append(
            "closed loop: the load slows down with the endpoint, so these latencies say nothing about a fixed rate"
        )
    else:
        notes.append("open loop: latencies count from the time a request was due, so no delay is omitted")
    notes += bottlenecks(generator)
    for problem, count in total["usage_problems"].items():
        what = "stream events were counted as tokens instead"
        notes.append(f"usage {problem} in {count} of {total['successes']} answers; {what}")
    per_event = total["tokens_per_event"]
    if per_event is not None and per_event > 1.05:
        notes.append(f"{per_event:g} tokens come in one event: times per token use the counts of `usage`")
    if total["reconnects"]:
        notes.append(f"{total['reconnects']} requests were sent again: the endpoint had closed an idle connection")
    return notes


def bottlenecks(generator: Mapping[str, Any]) -> list[str]:
    """Warnings that the figures may be the generator's own."""
    remedy = "lower the load, give it a core of its own, or split it among machines"
    notes = []
    lag, delay = generator["lag_ms"], generator["send_delay_ms"]
    if generator["cpu_share"] > CPU_SHARE_MAX:
        share = generator["cpu_share"]
        notes.append(f"WARNING the generator is the bottleneck: it used {share:.0%} of its core; {remedy}")
    if lag and lag["p99"] > LAG_P99_MAX_MS:
        notes.append(f"WARNING the generator's own delay reached {lag['p99']:.1f} ms at p99; {remedy}")
    if delay and delay["p99"] > SEND_DELAY_P99_MAX_MS:
        notes.append(f"WARNING requests left {delay['p99']:.1f} ms late at p99 (counted in every latency); {remedy}")
    return notes


class ResultsError(ValueError):
    """A file is no results file; one line that says why."""


def check_results(document: object, name: str) -> Document:
    """The document, when a report can be made of it. Raises ResultsError."""
    if not isinstance(document, dict):
        raise ResultsError(f"{name}: is no results file; make one with penstock loadtest URL --out {name}")
    if document.get("schema") != SCHEMA:
        raise ResultsError(
            f"{name}: schema {document.get('schema')!r} is not {SCHEMA!r}; give a file of penstock loadtest --out"
        )
    for key in ("meta", "workload", "total", "flows", "generator"):
        if not isinstance(document.get(key), dict):
            raise ResultsError(f"{name}: {key} is missing or no mapping; the file is damaged")
    for key, kind in _NEEDED.items():
        value = document["total"].get(key)
        if isinstance(value, bool) or not isinstance(value, kind):
            raise ResultsError(f"{name}: total.{key} is missing or of the wrong kind; the file is damaged")
    return document


Kinds = type | tuple[type, ...]
_NUMBER = (int, float)
_NEEDED: dict[str, Kinds] = {
    "requests": int, "successes": int, "success_rate": _NUMBER, "requests_per_s": _NUMBER, "output_tokens": int,
    "output_tokens_per_s": _NUMBER, "total_tokens_per_s": _NUMBER, "endings": dict, "statuses": dict, "steady": dict,
    **dict.fromkeys(LATENCIES, (dict, type(None))),
}  # fmt: skip


def json_schema() -> Document:
    """JSON Schema (draft 2020-12) of the results file."""
    count, amount = {"type": "integer", "minimum": 0}, {"type": "number", "minimum": 0}
    share = {"type": "number", "minimum": 0, "maximum": 1}
    counts = {"type": "object", "additionalProperties": count}
    steps = ("mean", "p50", "p90", "p95", "p99", "max")
    latency = _object({"count": count, **dict.fromkeys(steps, amount)})
    maybe = {"anyOf": [latency, {"type": "null"}]}
    rates = {"requests_per_s": amount, "output_tokens_per_s": amount}
    goodput = _object({"slo": {"type": "string"}, "ratio": share, **rates})
    figures = _object(
        {
            "requests": count, "successes": count, "success_rate": share, "interrupted": count, "endings": counts,
            "statuses": counts, "window_s": {"type": "number"}, **rates, "output_tokens": count,
            "prompt_tokens": count, "total_tokens_per_s": amount, "steady": _object({"seconds": amount, **rates}),
            "tokens_per_event": {"type": ["number", "null"]}, "usage_problems": counts, "reconnects": count,
            **dict.fromkeys(LATENCIES, maybe), "goodput": {"anyOf": [goodput, {"type": "null"}]},
        }
    )  # fmt: skip
    text = {"type": "string"}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Results of penstock loadtest",
        **_object(
            {
                "schema": {"const": SCHEMA},
                "meta": {"type": "object"},
                "workload": {"type": "object"},
                "slo": {"type": ["string", "null"]},
                "total": figures,
                "flows": {"type": "object", "additionalProperties": figures},
                "engine": {"type": ["object", "null"]},
                "generator": _object({"cpu_share": amount, "lag_ms": maybe, "send_delay_ms": maybe}),
                "examples": {"type": "object", "additionalProperties": text},
                "notes": {"type": "array", "items": text},
            }
        ),
    }


def _object(properties: Mapping[str, object]) -> Document:
    return {"type": "object", "required": list(properties), "properties": dict(properties)}
