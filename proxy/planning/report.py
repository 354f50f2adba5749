"""A plan for people (table, explanation) and for programs (JSON).

JSON, version 1: byte figures per rank, `kv_tokens` and `seats` of the whole deployment. `band` bounds `kv_bytes`,
`band_tokens` bounds `kv_tokens`. `provenance` is exact, from-file, estimated or live. GiB only in the table.
"""

from __future__ import annotations

from typing import Any

from proxy.planning.accelerators import GIB
from proxy.planning.advice import CHECKLIST, KV_TABLE, QUANTIZATION, Advice
from proxy.planning.capacity import (
    CONSERVATIVE_FACTOR,
    CONSERVATIVE_UTILIZATION,
    CapacityPlan,
)
from proxy.planning.layers import Kind
from proxy.planning.roofline import Point
from proxy.planning.worked_example import DIFFERENCES, Step

BATCHES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
Row = tuple[str, ...]


def as_json(plan: CapacityPlan) -> dict[str, Any]:
    """The plan as the documented mapping."""
    seats = plan.seats
    return {
        "version": 1,
        "model": plan.shape.name,
        "accelerator": plan.card.name,
        "engine": plan.engine.name,
        "engine_version": plan.request.engine_version or None,
        "count": plan.request.count,
        "tp": plan.tp,
        "pp": plan.request.pp,
        "dp": plan.request.dp,
        "kv_dtype": plan.kv_dtype,
        "weight_dtype": plan.shape.weights.name,
        "fraction": plan.fraction,
        "max_model_len": plan.context_tokens,
        "max_num_seqs": plan.max_num_seqs,
        "max_num_batched_tokens": plan.batched_tokens,
        "kv_bytes_per_token_per_rank": plan.token_bytes,
        "kv_tokens": plan.kv_tokens,
        "kv_bytes": plan.kv_bytes,
        "weights_bytes": plan.weights_bytes,
        "budget": [
            {"name": line.name, "bytes": line.bytes, "provenance": str(line.provenance), "note": line.note}
            | {"low": line.low, "high": line.high}
            for line in plan.budget.lines
        ],
        "seats": {
            "worst_case": seats.worst_case,
            "typical": seats.typical,
            "latency_adjusted": seats.latency_adjusted,
            "conservative": seats.conservative,
            "slo": seats.slo,
        },
        "max_concurrency": round(seats.worst_case_ratio, 4),
        "band": {"low": plan.budget.low, "high": plan.budget.high},
        "band_tokens": {"low": plan.kv_tokens_low, "high": plan.kv_tokens_high},
        "bound": plan.bound,
        "recommended": plan.recommended,
        "roofline": roofline_json(plan) if plan.shape.parameters else None,
        "notes": list(plan.notes),
    }


def roofline_json(plan: CapacityPlan) -> dict[str, Any]:
    prompt = min(2048, plan.context_tokens)
    return {
        "ridge": round(plan.roofline.ridge, 2),
        "compute_dtype": plan.roofline.compute_dtype,
        "context_tokens": typical_context(plan),
        "decode": [_point_json(point) for point in decode_points(plan)],
        "prefill": {"prompt_tokens": prompt} | _point_json(plan.roofline.prefill(prompt)),
    }


def _point_json(point: Point) -> dict[str, Any]:
    return {
        "batch": point.batch,
        "intensity": round(point.intensity, 3),
        "step_s": point.step_s,
        "expected_step_s": point.expected_s,
        "tokens_per_s": round(point.tokens_per_s, 1),
        "bound": point.bound,
    }


def typical_context(plan: CapacityPlan) -> int:
    return max(1, int(plan.context_tokens * plan.request.utilization))


def decode_points(plan: CapacityPlan) -> list[Point]:
    """Powers of two up to what fits, and the recommended batch."""
    most = max(1, plan.seats.typical)
    batches = sorted({batch for batch in BATCHES if batch <= most} | {max(1, plan.recommended)})
    return [plan.roofline.decode(batch, typical_context(plan)) for batch in batches]


def gib(value: float) -> str:
    return f"{value / GIB:.2f}"


def head_rows(plan: CapacityPlan) -> list[Row]:
    request = plan.request
    version = f" {request.engine_version}" if request.engine_version else ""
    return [
        ("model", f"{plan.shape.name}, weights {plan.shape.weights.name}, KV {plan.kv_dtype}"),
        ("hardware", f"{request.count} x {plan.card.name} (tp {plan.tp}, pp {request.pp}, dp {request.dp})"),
        ("engine", f"{plan.engine.name}{version}, fraction {plan.fraction:g}, max_model_len {plan.context_tokens}"),
    ]


def budget_rows(plan: CapacityPlan) -> list[Row]:
    rows: list[Row] = [("memory of one GPU", "GiB", "low", "high", "provenance", "")]
    rows += [
        (line.name, gib(line.bytes), gib(line.low), gib(line.high), str(line.provenance), line.note)
        for line in plan.budget.lines
    ]
    budget = plan.budget
    rows.append(("= KV cache", gib(budget.kv_bytes), gib(budget.low), gib(budget.high), "", ""))
    return rows


def capacity_rows(plan: CapacityPlan) -> list[Row]:
    seats, request = plan.seats, plan.request
    rows: list[Row] = [
        ("KV bytes per token per rank", f"{plan.token_bytes:,}", "exact"),
        ("KV tokens", f"{plan.kv_tokens:,}", f"{plan.kv_tokens_low:,} to {plan.kv_tokens_high:,}"),
        (
            "seats, worst case",
            f"{seats.worst_case}",
            f"all at {plan.context_tokens} tokens ({seats.worst_case_ratio:.2f}x)",
        ),
        ("seats, typical", f"{seats.typical}", f"at {request.utilization:g} of max_model_len"),
        (
            "seats, latency-adjusted",
            f"{seats.latency_adjusted}",
            f"typical x {request.latency_factor:g}, rule of thumb",
        ),
        (
            "seats, conservative",
            f"{seats.conservative}",
            f"at {CONSERVATIVE_UTILIZATION:g} of max_model_len, x {CONSERVATIVE_FACTOR:g}",
        ),
    ]
    if seats.slo is not None:
        rows.append(("seats, latency target", f"{seats.slo}", f"roofline, step within {request.itl_ms:g} ms"))
    rows.append(("recommended", f"{plan.recommended}", f"bound by {plan.bound}"))
    if request.ttft_ms is not None and plan.shape.parameters:
        longest = plan.roofline.longest_prompt(request.ttft_ms / 1e3, plan.context_tokens)
        rows.append(("longest prompt", f"{longest}", f"prefill alone within {request.ttft_ms:g} ms"))
    return rows


def roofline_rows(plan: CapacityPlan) -> list[Row]:
    rows: list[Row] = [("decode batch", "FLOP/byte", "step ms", "expected ms", "tokens/s", "bound by")]
    return rows + [
        (
            f"{point.batch}",
            f"{point.intensity:.1f}",
            f"{point.step_s * 1e3:.2f}",
            f"{point.expected_s * 1e3:.2f}",
            f"{point.tokens_per_s:,.0f}",
            point.bound,
        )
        for point in decode_points(plan)
    ]


def memory_rows(plan: CapacityPlan, limit_gib: float | None) -> list[Row]:
    """Memory of one GPU by batch at the typical length, and what a limit leaves room for."""
    rows: list[Row] = [("batch", "GiB per GPU", "")]
    for batch in (*BATCHES, max(1, plan.seats.typical)):
        used = memory_of_batch(plan, batch)
        fits = batch <= plan.seats.typical and (limit_gib is None or used <= limit_gib * GIB)
        rows.append((f"{batch}", gib(used), "" if fits else "does not fit"))
    if limit_gib is not None:
        rows.append(
            ("most", f"{largest_batch(plan, int(limit_gib * GIB))}", f"requests within {limit_gib:g} GiB per GPU")
        )
    return rows


def memory_json(plan: CapacityPlan) -> list[dict[str, int]]:
    """The same as whole bytes, up to what fits."""
    most = plan.seats.typical
    batches = [batch for batch in BATCHES if batch < most] + [most] * (most > 0)
    return [{"batch": batch, "bytes": memory_of_batch(plan, batch)} for batch in batches]


def memory_of_batch(plan: CapacityPlan, batch: int) -> int:
    """Bytes of one GPU that `batch` requests of the typical length take: weights, overheads and their cache."""
    return fixed_bytes(plan) + batch * plan.cache.request_bytes(typical_context(plan))


def fixed_bytes(plan: CapacityPlan) -> int:
    """Everything but the cache that is really in use; what a fraction merely leaves aside is not."""
    return -sum(line.bytes for line in plan.budget.lines if line.bytes < 0 and not line.name.startswith("outside"))


def largest_batch(plan: CapacityPlan, limit_bytes: int) -> int:
    """The most typical requests of one replica whose memory stays within the limit and the engine's pool."""
    room = min(limit_bytes - fixed_bytes(plan), plan.kv_bytes)
    return max(0, int(plan.cache.seats(room, typical_context(plan))))


def explain_lines(plan: CapacityPlan, advice: list[Advice]) -> list[str]:
    """Each step with its numbers put into the formula, then the tables behind the advice."""
    return [*_token_lines(plan), *_budget_lines(plan), *_seat_lines(plan), "", *_table_lines()] + [
        f"advice ({item.basis}): {item.topic}: {item.text} - {item.reason}" for item in advice
    ]


def _token_lines(plan: CapacityPlan) -> list[str]:
    lines = ["bytes per token per rank:"]
    for group in plan.shape.groups:
        what = (
            f"latent {group.latent_dim} + indexer {group.index_dim}"
            if group.latent_dim
            else f"ceil({group.kv_heads} KV heads / tp {plan.tp}) x ({group.k_dim} + {group.v_dim})"
        )
        window = f", at most {group.window_tokens} tokens" if group.window_tokens else ""
        grows = " (fixed, not counted)" if group.kind is Kind.CROSS else ""
        lines.append(f"  {group.layers} {group.kind} layers x {what} x {plan.kv_dtype}{window}{grows}")
    if plan.shape.state:
        state = plan.shape.state
        lines.append(
            f"  {state.layers} recurrent layers keep {state.conv_elements} + {state.ssm_elements} elements per sequence"
        )
    return [*lines, f"  = {plan.token_bytes:,} B"]


def _budget_lines(plan: CapacityPlan) -> list[str]:
    parts = " ".join(
        f"{'-' if line.bytes < 0 else '+'} {gib(abs(line.bytes))} ({line.name})" for line in plan.budget.lines
    )
    return [
        f"KV cache of one rank = {parts.removeprefix('+ ')} = {gib(plan.kv_bytes)} GiB",
        f"KV tokens = {plan.kv_bytes:,} B in the engine's blocks = {plan.kv_tokens:,}",
    ]


def _seat_lines(plan: CapacityPlan) -> list[str]:
    seats, longest, request = plan.seats, plan.context_tokens, plan.request
    return [
        f"worst case = pool / cache of {longest} tokens = {seats.worst_case_ratio:.2f} -> {seats.worst_case}",
        f"typical = pool / cache of {longest} x {request.utilization:g} tokens -> {seats.typical}",
        f"latency-adjusted = typical x {request.latency_factor:g} -> {seats.latency_adjusted}",
        f"conservative = pool / cache of {longest} x {CONSERVATIVE_UTILIZATION:g} tokens x {CONSERVATIVE_FACTOR:g}"
        f" -> {seats.conservative}",
        f"recommended = the smallest bound = {plan.recommended} ({plan.bound})",
    ]


def _table_lines() -> list[str]:
    lines = ["quantization (rules of thumb): format, throughput, memory, accuracy loss, hardware"]
    lines += [f"  {name}: {', '.join(values)}" for name, values in QUANTIZATION.items()]
    lines += ["KV cache types: capacity against 16 bit, accuracy loss"]
    lines += [f"  {name}: {', '.join(values)}" for name, values in KV_TABLE.items()]
    return [*lines, "checklist:", *(f"  [ ] {item}" for item in CHECKLIST), ""]


def example_rows(steps: tuple[Step, ...]) -> list[Row]:
    rows: list[Row] = [("step", "formula", "rounding", "quoted", "computed")]
    return rows + [
        (step.name, step.formula, f"{step.raw:,.7g} {step.rounding}", plain(step.quoted), plain(step.computed))
        for step in steps
    ]


def plain(value: float) -> str:
    """A figure in full: 1,437,500 and 57.5."""
    return f"{value:,.0f}" if value == int(value) else f"{value:,.2f}".rstrip("0")


def example_json(steps: tuple[Step, ...], engine: CapacityPlan) -> dict[str, Any]:
    return {
        "steps": [
            {
                "name": step.name,
                "formula": step.formula,
                "raw": step.raw,
                "rounding": step.rounding,
                "quoted": step.quoted,
                "computed": step.computed,
            }
            for step in steps
        ],
        "engine": as_json(engine),
        "differences": list(DIFFERENCES),
    }
