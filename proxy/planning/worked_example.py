"""The sizing of a public worked example, re-derived: Llama 70B in fp8 on four 80 GB H100, TensorRT-LLM, 16,384 tokens.

The document counts in GB and divides by 40 kB where a token takes 40,960 bytes; it rounds the ratio 350.95 and the
products 125.34 and 166.63 to the nearest whole number and cuts 210.57. Each `Step` holds its inputs' arithmetic, so
that `quoted` follows from the document's own rounding and `computed` from exact bytes and whole seats.

    bytes/token = 2 * (kv_heads / tp) * head_dim * layers * 1
    tokens      = (HBM * fraction - weights/tp - 5 GB) / bytes per token
    seats       = tokens / (max_seq_len * utilization) * latency factor
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import floor

GB, KB = 10**9, 10**3
LAYERS, KV_HEADS, HEAD_DIM, TP = 80, 8, 128, 4
HBM_GB, WEIGHTS_GB, OVERHEAD_GB, FRACTION = 80.0, 70.0, 5.0, 0.85
LONGEST, UTILIZATION, LATENCY = 16384, 0.25, 0.60
CAUTIOUS_UTILIZATION, CAUTIOUS_LATENCY = 0.35, 0.50


def exact(value: float) -> float:
    return value


def nearest(value: float) -> float:
    return floor(value + 0.5)


def cut(value: float) -> float:
    return floor(value)


@dataclass(frozen=True, slots=True)
class Step:
    """One figure: as the document rounds it, and exactly. `formula` shows the numbers put in."""

    name: str
    formula: str
    raw: float  # the document's arithmetic before rounding
    rounding: str
    quoted: float
    computed: float


ROUNDINGS: dict[str, Callable[[float], float]] = {"exact": exact, "to nearest": nearest, "cut": cut}


def _step(name: str, formula: str, raw: float, rounding: str, computed: float) -> Step:
    return Step(name, formula, raw, rounding, ROUNDINGS[rounding](raw), computed)


def batch_size_reasoning() -> tuple[Step, ...]:
    """The steps in the document's order."""
    size = 2 * (KV_HEADS // TP) * HEAD_DIM * LAYERS
    rounded_size = size // 1024 * KB  # "40 KB", then used as 40,000
    pool_gb = HBM_GB - WEIGHTS_GB / TP - OVERHEAD_GB
    tight_gb = HBM_GB * FRACTION - WEIGHTS_GB / TP - OVERHEAD_GB
    tokens, exact_tokens = pool_gb * GB / rounded_size, floor(pool_gb * GB / size)
    tight, exact_tight = tight_gb * GB / rounded_size, floor(tight_gb * GB / size)
    usual, cautious = LONGEST * UTILIZATION, LONGEST * CAUTIOUS_UTILIZATION
    factor = f"{LONGEST} x {UTILIZATION:g}"
    return (
        _step("bytes per token per GPU", f"2 x {KV_HEADS // TP} x {HEAD_DIM} x {LAYERS} x 1 B", size, "exact", size),
        _step("KV cache, GB", f"{HBM_GB:g} - {WEIGHTS_GB:g}/{TP} - {OVERHEAD_GB:g}", pool_gb, "exact", pool_gb),
        _step("tokens", f"{pool_gb:g} GB / {rounded_size // KB} kB", tokens, "exact", exact_tokens),
        _step("seats in memory", f"tokens / ({factor})", tokens / usual, "to nearest", floor(exact_tokens / usual)),
        _step(
            "latency-adjusted",
            f"seats x {LATENCY:g}",
            tokens / usual * LATENCY,
            "cut",
            floor(exact_tokens / usual * LATENCY),
        ),
        _step(
            "conservative floor",
            f"tokens / ({LONGEST} x {CAUTIOUS_UTILIZATION:g}) x {CAUTIOUS_LATENCY:g}",
            tokens / cautious * CAUTIOUS_LATENCY,
            "to nearest",
            floor(exact_tokens / cautious * CAUTIOUS_LATENCY),
        ),
        _step(
            f"KV cache at fraction {FRACTION:g}, GB",
            f"{HBM_GB:g} x {FRACTION:g} - {WEIGHTS_GB:g}/{TP} - {OVERHEAD_GB:g}",
            tight_gb,
            "exact",
            tight_gb,
        ),
        _step("tokens at that fraction", f"{tight_gb:g} GB / {rounded_size // KB} kB", tight, "exact", exact_tight),
        _step(
            "latency-adjusted at that fraction",
            f"tokens / ({factor}) x {LATENCY:g}",
            tight / usual * LATENCY,
            "to nearest",
            floor(exact_tight / usual * LATENCY),
        ),
    )


DIFFERENCES = (
    "TensorRT-LLM takes its fraction of the memory that is FREE after weights and activations, not of the total:"
    " (total - weights - activations) x 0.85 leaves more than total x 0.85 - weights - activations",
    "an 80 GB H100 gives a process 79.2 GiB = 85.0e9 bytes, more than the 80e9 of the budget in GB",
    "embeddings and the output head stay at 16 bit in an fp8 checkpoint: a rank holds 16.9 GiB (18.2 GB), not 17.5 GB",
)


# A public measurement on a T4 with Llama-2-7B AWQ: ridge, and decode intensity by batch, as the document states them.
T4_RIDGE, T4_QUOTED = 203.0, {1: (3.0, 3.0), 8: (15.0, 24.0)}
T4_CONTEXTS = (128, 512, 1024)
T4_EXPLANATION = (
    "ridge = 65e12 FLOP/s / 320e9 B/s = 203 FLOP/byte",
    "at batch 1 a step reads all 4-bit weights (3.9 GB, not 50 MB) for 2 FLOP per parameter: 2 / 0.52 = 3.8 at most,"
    " about 3 with the 16-bit head and the cache",
    "at batch 8 the weights are read once for eight tokens, but each sequence reads its own cache"
    " (524,288 B per token): the longer the contexts, the less intensity grows",
)


@dataclass(frozen=True, slots=True)
class IntensityCheck:
    """Decode intensity in FLOP per byte at one batch and context, beside the range that the document gives."""

    batch: int
    context: int
    computed: float
    low: float
    high: float


def t4_intensities(intensity: Callable[[int, int], float]) -> list[IntensityCheck]:
    """`intensity(batch, context)` of the roofline, at each context that the document's chat workload may hold."""
    return [
        IntensityCheck(batch, context, intensity(batch, context), *T4_QUOTED[batch])
        for batch in T4_QUOTED
        for context in T4_CONTEXTS
    ]
