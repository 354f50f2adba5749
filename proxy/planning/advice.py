"""Advice beside a plan: each piece with its reason, marked as a rule of thumb or as computed from the plan.

The ranges of the tables are those of public tuning guides for quantized serving; where hardware facts differ from a
guide, the hardware fact stands (fp8 products exist from SM 8.9, not only on Hopper; a 4-bit KV element costs 0.5625 B).
"""

from __future__ import annotations

from dataclasses import dataclass

from proxy.planning.capacity import CapacityPlan
from proxy.planning.fields import PlanError
from proxy.planning.precision import KV_BYTES

RULE, COMPUTED = "rule of thumb", "computed"
ADA, AMPERE, BLACKWELL = 89, 80, 100
SMALL_GPU_GB, LARGE_GPU_GB = 24, 80
BILLION = 10**9
GRAPH_BATCH = 32


@dataclass(frozen=True, slots=True)
class UseCase:
    """Batch range of a kind of work, and the engine settings that go with it."""

    low: int
    high: int
    usual: int
    reason: str
    max_model_len: int
    chunked_prefill: bool
    batch_factor: float
    fraction: float = 0.90


USE_CASES: dict[str, UseCase] = {
    "interactive": UseCase(1, 4, 2, "lowest latency, lower throughput", 1024, False, 1.0),
    "mixed": UseCase(8, 64, 16, "balance of throughput and latency", 2048, False, 1.0),
    "batch": UseCase(32, 256, 64, "highest throughput, latency hardly matters", 2048, False, 2.0, 0.95),
    "longform": UseCase(4, 16, 8, "long sequences hold more memory each", 4096, True, 0.5),
}
# format: (throughput against fp16, memory, accuracy loss, hardware)
QUANTIZATION: dict[str, tuple[str, str, str, str]] = {
    "fp8": ("1.5-2x", "1/2", "below 1 %", "products from SM 8.9 (Ada, Hopper, Blackwell); weight-only on Ampere"),
    "int4 / fp4": ("2-3x", "1/4", "2-5 %, by model", "int4 everywhere; nvfp4 products on Blackwell"),
    "int8": ("1.3-1.8x", "1/2", "1-2 %", "all from Turing on"),
}
KV_TABLE: dict[str, tuple[str, str]] = {
    "bf16": ("1x", "none"),
    "fp8": ("2x", "below 1 %"),
    "nvfp4": ("3.56x", "2-3 %"),
}
CHECKLIST = (
    "start from a reference configuration (--trtllm-configs)",
    "quantize to fp8 where the card has it",
    "use an fp8 KV cache",
    "find the batch size for the workload: raise it until throughput stops growing or the latency target is missed",
    "set the memory fraction to 0.8-0.9",
    "keep CUDA graphs on where latency matters",
    "check accuracy on samples of your own",
    "profile before tuning further",
)


@dataclass(frozen=True, slots=True)
class Advice:
    """One recommendation. `basis` is `rule of thumb` or `computed`."""

    topic: str
    text: str
    reason: str
    basis: str


def use_case_batch(name: str, gpu_gb: float) -> tuple[UseCase, int]:
    """The use case and its batch: halved below 24 GB, doubled from 80 GB on, inside the range."""
    case = USE_CASES.get(name)
    if case is None:
        raise PlanError(f"--use-case {name!r} is unknown; use one of: {', '.join(USE_CASES)}")
    if gpu_gb < SMALL_GPU_GB:
        return case, max(case.low, case.usual // 2)
    if gpu_gb >= LARGE_GPU_GB:
        return case, min(case.high, case.usual * 2)
    return case, case.usual


def advise(plan: CapacityPlan, use_case: str | None = None) -> list[Advice]:
    """All advice for a plan, most consequential first."""
    pieces = [_fit(plan), _quantization(plan), _kv(plan), *_parallelism(plan), _graphs(plan), _speculation(plan)]
    if use_case is not None:
        pieces.insert(0, _use_case(plan, use_case))
    return [piece for piece in pieces if piece is not None]


def _use_case(plan: CapacityPlan, name: str) -> Advice:
    case, batch = use_case_batch(name, plan.card.nominal_gb)
    seats = max(1, int(batch * case.batch_factor))
    text = (
        f"{name}: batch {batch} of {case.low}-{case.high}; max_num_seqs {seats}, max_model_len {case.max_model_len},"
        f" max_num_batched_tokens {batch * 512}, chunked prefill {'on' if case.chunked_prefill else 'off'},"
        f" fraction {case.fraction:g}"
    )
    return Advice("use case", text, f"{case.reason}; memory here holds {plan.seats.typical} typical requests", RULE)


def _fit(plan: CapacityPlan) -> Advice | None:
    if plan.fits():
        return None
    text = (
        f"one request of {plan.context_tokens} tokens does not fit: use more GPUs, a smaller weight format or context"
    )
    return Advice("memory", text, f"{plan.kv_bytes / 2**30:.2f} GiB are left for the cache", COMPUTED)


def _quantization(plan: CapacityPlan) -> Advice:
    """By parameters: below 10 B as is, to 70 B fp8, above fp8 with an fp8 cache, from 400 B 4 bit."""
    size = plan.shape.counted.total / BILLION
    sm, vendor = plan.card.sm, plan.card.vendor
    if vendor == "nvidia" and sm < AMPERE:
        reason = f"SM {sm / 10:g} has neither bf16 nor fp8"
        return Advice("quantization", "fp16 with AWQ or GPTQ 4-bit weights", reason, RULE)
    if size >= 400:
        best = "nvfp4" if sm >= BLACKWELL else "int4 (AWQ, GPTQ)"
        return Advice(
            "quantization", f"{best} weights", f"{size:.0f} B parameters: 4 bit keeps the GPU count low", RULE
        )
    if vendor == "nvidia" and sm < ADA:
        reason = f"SM {sm / 10:g} has no fp8 products; fp8 weights run weight-only (Marlin)"
        return Advice("quantization", "int8, or 4-bit weights where memory binds", reason, RULE)
    if size >= 70:
        return Advice("quantization", "fp8 weights and fp8 KV cache", f"{size:.0f} B parameters: memory decides", RULE)
    if size >= 10:
        return Advice("quantization", "fp8 weights", f"{size:.0f} B parameters: best throughput for its accuracy", RULE)
    return Advice("quantization", "fp8 or 16 bit", f"{size:.1f} B parameters fit; keep accuracy", RULE)


def _kv(plan: CapacityPlan) -> Advice | None:
    if not plan.shape.groups or plan.kv_dtype not in ("bf16", "fp16"):
        return None
    gain = float(KV_BYTES[plan.kv_dtype] / KV_BYTES["fp8"])
    if plan.shape.state is not None:
        text = "fp8 KV cache gains little here: the recurrent states keep their width and set the block size"
        return Advice("kv cache", text, "hybrid model", COMPUTED)
    if plan.card.vendor == "nvidia" and plan.card.sm < AMPERE:
        return Advice("kv cache", "keep the 16-bit KV cache", f"SM {plan.card.sm / 10:g} has no fp8 formats", RULE)
    kind = "fp8_e4m3" if plan.card.sm >= ADA or plan.card.vendor != "nvidia" else "fp8_e5m2"
    text = f"{kind} KV cache: about {gain:g}x tokens ({plan.kv_tokens} -> {int(plan.kv_tokens * gain)})"
    return Advice("kv cache", text, "half the bytes per element; accuracy loss usually below 1 %", COMPUTED)


def _parallelism(plan: CapacityPlan) -> list[Advice]:
    shape, request = plan.shape, plan.request
    pieces = []
    divisors = [tp for tp in (1, 2, 4, 8, 16, 32) if tp <= request.count and shape.heads % tp == 0]
    text = f"tp x pp x dp = {plan.tp} x {request.pp} x {request.dp} = {request.count} GPUs; tp may be {divisors}"
    pieces.append(Advice("parallelism", text, f"tp must divide {shape.heads} heads", COMPUTED))
    if shape.kv_heads and plan.tp > shape.kv_heads:
        reason = f"{shape.kv_heads} KV heads replicate beyond tp {shape.kv_heads}: no more capacity"
        pieces.append(Advice("parallelism", f"prefer tp {shape.kv_heads} and dp for the rest", reason, COMPUTED))
    if shape.latent and plan.tp > 1:
        reason = "the latent cache is whole on every rank"
        text = "use data-parallel attention or decode-context parallelism instead of more tp"
        pieces.append(Advice("parallelism", text, reason, COMPUTED))
    if plan.tp > 8:
        reason = "an all-reduce per layer leaves the node's fast links"
        pieces.append(Advice("parallelism", "pp across nodes, tp inside one", reason, RULE))
    return pieces


def _graphs(plan: CapacityPlan) -> Advice:
    small = plan.recommended < GRAPH_BATCH
    text = "keep CUDA graphs on (drop --enforce-eager)" if small else "CUDA graphs matter less at this batch"
    reason = f"they save 10-20 % latency, most below batch {GRAPH_BATCH}, for some memory"
    return Advice("cuda graphs", text, reason, RULE)


def _speculation(plan: CapacityPlan) -> Advice | None:
    point = plan.roofline.decode(max(1, plan.recommended), max(1, plan.context_tokens // 4))
    if point.bound != "memory":
        return None
    heads = (
        f"{plan.shape.draft_layers} draft layers are in the checkpoint" if plan.shape.draft_layers else "needs a draft"
    )
    text = f"speculative decoding may give 1.5-2x ({heads})"
    return Advice("speculation", text, f"decode at batch {point.batch} is bound by memory, compute is idle", RULE)
