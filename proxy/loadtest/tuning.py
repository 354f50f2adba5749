"""The answer of a search as a document: the recommendation, flags and configuration to copy, and the evidence.

Flag names: vLLM `EngineArgs`, SGLang `server_args.py`, `trtllm-serve`, the TGI launcher, `llama-server`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from math import ceil
from typing import Any

from proxy.loadtest.blocks import Block, Code, Drawing, Grid, Heading, Lines
from proxy.loadtest.results import Document
from proxy.loadtest.search import KV_HIGH, KV_LOW, Aim, Search, Trial, use_cases
from proxy.loadtest.sweeping import charts
from proxy.loadtest.text import amount

SCHEMA = "penstock.tune/1"
FLAGS = {
    "vllm": "vllm serve MODEL --max-num-seqs {n}",
    "sglang": "python -m sglang.launch_server --model-path MODEL --max-running-requests {n}",
    "trtllm": "trtllm-serve MODEL --max_batch_size {n}",
    "tgi": "text-generation-launcher --model-id MODEL --max-batch-size {n}",
    "llamacpp": "llama-server --model FILE --parallel {n}",
}
HEADROOM = 1.25  # what the proxy's own law may try above the confirmed setting


def tune_document(of: Mapping[str, Any], aim: Aim, search: Search, engine: str, interrupted: bool) -> Document:
    """Everything that was tried, and the answer."""
    confirmed = search.confirmed
    return {
        "schema": SCHEMA,
        "of": dict(of),
        "aim": asdict(aim),
        "engine": engine,
        "interrupted": interrupted,
        "saturated": search.saturated,
        "recommended_concurrency": confirmed.step.concurrency if confirmed else None,
        "flags": flags(engine, confirmed.step.concurrency) if confirmed else {},
        "use_cases": [asdict(one) for one in use_cases(search.trials, confirmed)],
        "trials": [
            {**asdict(trial.step), "held": trial.held, "problems": list(trial.problems), **asdict(trial.point)}
            for trial in search.trials
        ],
    }


def flags(engine: str, concurrency: int) -> dict[str, str]:
    """The command line of the engine that was found; of all where it is unknown."""
    known = {engine: FLAGS[engine]} if engine in FLAGS else FLAGS
    return {name: template.format(n=concurrency) for name, template in known.items()}


def penstock_config(url: str, aim: Aim, concurrency: int) -> str:
    """A configuration that starts at the answer and goes on adapting around it."""
    return (
        "upstreams:\n"
        "  - name: engine\n"
        f"    url: {url}\n"
        f"    limit: {{mode: adaptive, initial: {concurrency}, max: {ceil(concurrency * HEADROOM)}}}\n"
        f"target: {{itl_ms: {aim.itl_ms:g}, ttft_ms: {aim.ttft_ms:g}, attainment: {aim.attainment:g}}}"
    )


def tune_blocks(
    url: str, aim: Aim, search: Search, engine: str, warnings: Sequence[str], hourly: float | None
) -> list[Block]:
    """The document but for its title. `hourly` is what the hardware costs per hour, in any currency."""
    confirmed = search.confirmed
    blocks: list[Block] = [Heading("Recommendation"), Lines(tuple(in_words(aim, search)))]
    if confirmed is not None:
        number = confirmed.step.concurrency
        blocks += [Heading("Engine"), Code("\n".join(flags(engine, number).values()))]
        blocks += [Heading("Penstock"), Code(penstock_config(url, aim, number))]
    if cases := use_cases(search.trials, confirmed):
        rows = [(case.name, f"{case.concurrency}", case.reason) for case in cases]
        blocks += [Heading("By use case"), Grid((("use case", "concurrency", "why"), *rows))]
    if search.trials:
        blocks += [Heading("Evidence"), Grid(_evidence(search.trials, hourly))]
    blocks += [Lines(tuple(warnings))] if warnings else []
    latest = {trial.step.concurrency: trial.point for trial in search.trials}
    return [*blocks, *(Drawing(chart) for chart in charts(list(latest.values()), "concurrency"))]


def _evidence(trials: Sequence[Trial], hourly: float | None) -> tuple[tuple[str, ...], ...]:
    money = ("cost per 1M tokens",) if hourly else ()
    latency = ("TTFT p50", "TTFT p99", "ITL p50", "ITL p99")
    head = ("concurrency", "run", "tok/s", *latency, "good", "KV", *money, "verdict")
    body = []
    for trial in trials:
        point = trial.point
        dear = (f"{hourly / 3600 / point.tokens_per_s * 1e6:.3f}" if point.tokens_per_s else "-",) if hourly else ()
        latencies = (point.ttft_p50_ms, point.ttft_p99_ms, point.tpot_p50_ms, point.tpot_p99_ms)
        shares = ("-" if value is None else f"{value:.0%}" for value in (point.good_ratio, point.kv_mean))
        figures = (amount(point.tokens_per_s), *map(amount, latencies), *shares, *dear)
        verdict = "holds" if trial.held else "; ".join(trial.problems)
        body.append((f"{trial.step.concurrency}", trial.step.phase, *figures, verdict))
    return (head, *body)


def in_words(aim: Aim, search: Search) -> list[str]:
    """The answer, and how it was found."""
    target = f"ITL {aim.itl_ms:g} ms, TTFT {aim.ttft_ms:g} ms for {aim.attainment:.0%} of requests"
    confirmed = search.confirmed
    if confirmed is None:
        if search.next() is not None:
            return [f"Not finished: no setting is confirmed yet for {target}."]
        return [f"No setting keeps {target}: even one request at a time misses it. {_why(search.trials)}"]
    point = confirmed.point
    lines = [
        f"A concurrency of {confirmed.step.concurrency} keeps {target}: {amount(point.tokens_per_s)} output tokens/s, "
        f"TTFT p99 {amount(point.ttft_p99_ms)} ms, ITL p99 {amount(point.tpot_p99_ms)} ms."
    ]
    broken = [trial for trial in search.trials if not trial.held]
    if search.saturated:
        lines.append("Beyond it throughput no longer grows: the engine is full, and requests would only wait longer.")
    elif broken:
        first = min(broken, key=lambda trial: trial.step.concurrency)
        lines.append(f"The target breaks at {first.step.concurrency}: {'; '.join(first.problems)}.")
    else:
        lines.append(f"Nothing broke up to {aim.concurrency_max}, the highest that was allowed.")
    if confirmed.point.kv_mean is not None:
        lines.append(memory_words(confirmed.point.kv_mean))
    return lines


def memory_words(kv_mean: float) -> str:
    used = f"{kv_mean:.0%} of the KV cache is in use at steady peak"
    if kv_mean < KV_LOW:
        return f"{used}, below {KV_LOW:.0%}: latency bounds this engine, not memory; a smaller share would do."
    return f"{used}, within {KV_LOW:.0%} to {KV_HIGH:.0%}."


def _why(trials: Sequence[Trial]) -> str:
    return "; ".join(trials[-1].problems) + "." if trials else ""
