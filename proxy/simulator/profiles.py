"""What an engine is made of: step time, memory, scheduler limits and output lengths.

One engine step takes t = a + b*n + c*K + d*p seconds, with n decoding sequences, K tokens of KV cache that they read
and p prompt tokens computed beside them. The coefficients are measured, or follow from a roofline (Williams et al.,
CACM 2009): a = weight bytes / bandwidth + overhead, b = d = 2 * parameters / compute, c = KV bytes per token /
bandwidth. A real step overlaps the two roofs, max(memory, compute) <= t, so the sum is at most twice the bound.

Output lengths are lognormal with mean m and coefficient of variation v: sigma^2 = ln(1 + v^2), mu = ln m - sigma^2 /
2.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class StepTime:
    """Coefficients a, b, c, d of one step, in seconds."""

    base_s: float
    sequence_s: float
    kv_token_s: float
    prefill_token_s: float

    def seconds(self, sequences: int, kv_tokens: int, prefill_tokens: int) -> float:
        return (
            self.base_s
            + self.sequence_s * sequences
            + self.kv_token_s * kv_tokens
            + self.prefill_token_s * prefill_tokens
        )


@dataclass(frozen=True, slots=True)
class Roofline:
    """A dense model on `devices` equal accelerators; bandwidth and FLOP/s are per device, sizes for the whole model.

    The shares of peak are what kernels reach in practice; `overhead_s` is launch, sampling and collectives per step.
    """

    parameters: float
    weight_bytes: float
    kv_bytes_per_token: float
    devices: int
    bandwidth_bytes_s: float
    flops: float
    overhead_s: float
    bandwidth_share: float = 0.8
    compute_share: float = 0.45

    def step_time(self) -> StepTime:
        bytes_s = self.devices * self.bandwidth_bytes_s * self.bandwidth_share
        token_s = 2 * self.parameters / (self.devices * self.flops * self.compute_share)
        return StepTime(
            base_s=self.weight_bytes / bytes_s + self.overhead_s,
            sequence_s=token_s,
            kv_token_s=self.kv_bytes_per_token / bytes_s,
            prefill_token_s=token_s,
        )


@dataclass(frozen=True, slots=True)
class EngineProfile:
    """One engine on one machine. `noise` is the sigma of a lognormal factor of mean 1 on every step (0: none)."""

    name: str
    model: str
    step_time: StepTime
    kv_tokens: int
    context_tokens: int
    max_seqs: int
    chunk_tokens: int  # prompt and output tokens that one step may compute
    block_tokens: int = 16
    noise: float = 0.0
    output_mean: float = 256.0
    output_cv: float = 1.0

    def __post_init__(self) -> None:
        if self.max_seqs > self.chunk_tokens:
            raise ValueError(f"{self.name}: max_seqs {self.max_seqs} exceeds chunk_tokens {self.chunk_tokens}")

    @property
    def kv_blocks(self) -> int:
        return self.kv_tokens // self.block_tokens

    @property
    def request_tokens_max(self) -> int:
        """Longest prompt plus output that can ever run: the context, or all of the KV cache."""
        return min(self.context_tokens, self.kv_blocks * self.block_tokens)

    def draw_output_tokens(self, rng: random.Random) -> int:
        variance = math.log1p(self.output_cv**2)
        return max(1, round(rng.lognormvariate(math.log(self.output_mean) - variance / 2, math.sqrt(variance))))


# H100 SXM data sheet: 3.35 TB/s, 1979 dense FP8 TFLOP/s. 80 layers, 8 KV heads of 128, FP8: 163,840 bytes a token.
# KV tokens: (79.2 GiB - weights 16.4 - activations and buffers 4.7) * 0.85 per card, at 40 KiB a token and card.
H100X4_LLAMA70B_FP8 = EngineProfile(
    name="h100x4-llama70b-fp8",
    model="simulated-llama-3.3-70b-fp8",
    step_time=Roofline(
        parameters=70.6e9,
        weight_bytes=70.6e9,
        kv_bytes_per_token=163_840,
        devices=4,
        bandwidth_bytes_s=3.35e12,
        flops=1979e12,
        overhead_s=0.002,
    ).step_time(),
    kv_tokens=1_294_992,
    context_tokens=16_384,
    max_seqs=1024,
    chunk_tokens=8192,
    noise=0.05,
)

# Measured on one T4: 27.2 ms a token alone and 40.7 ms at eight sequences, of which 2.05 us per KV token are cache
# reads (512 KiB a token at 80 % of 320 GB/s) at 128 tokens of context. Prefill: 65 TFLOP/s at 45 %.
T4_7B_AWQ = EngineProfile(
    name="t4-7b-awq",
    model="simulated-llama-2-7b-awq",
    step_time=StepTime(base_s=0.02529, sequence_s=0.001666, kv_token_s=2.05e-6, prefill_token_s=0.00046),
    kv_tokens=16_384,
    context_tokens=2048,
    max_seqs=8,
    chunk_tokens=2048,
    noise=0.03,
    output_mean=128.0,
)

# a, b, d: the example coefficients of inference-sim (github.com/inference-sim/inference-sim); c is an estimate.
H100_QWEN3_14B = EngineProfile(
    name="h100-qwen3-14b",
    model="simulated-qwen3-14b",
    step_time=StepTime(base_s=0.01358, sequence_s=27.3e-6, kv_token_s=0.08e-6, prefill_token_s=39.4e-6),
    kv_tokens=240_000,
    context_tokens=40_960,
    max_seqs=256,
    chunk_tokens=2048,
    noise=0.12,
)

PROFILES = {profile.name: profile for profile in (H100X4_LLAMA70B_FP8, T4_7B_AWQ, H100_QWEN3_14B)}


def profile_named(name: str) -> EngineProfile:
    """Raises ValueError, naming the profiles there are."""
    if name not in PROFILES:
        raise ValueError(f"no engine profile {name!r}; choose one of: {', '.join(PROFILES)}")
    return PROFILES[name]
