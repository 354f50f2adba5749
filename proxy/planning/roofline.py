"""How fast a batch can step at best: the roofline bound (Williams et al., CACM 2009) of one decode or prefill step.

    t_memory  = (W(B) + B * kv * L) / (bandwidth * e_b)       W: weight bytes read, kv: cache bytes per token
    t_compute = (2 * P_active * B + 4*H*d*layers * L * B) / (flops * e_f)
    step      = max(t_memory, t_compute)      intensity = FLOP / byte      ridge = flops / bandwidth

per rank (everything divides by tp). e_b = 0.8 is the public aiconfigurator system constant; e_f = 0.45 for prefill,
0.30 for decode are BLIS's measured H100 shares. They set the expected time, 1.0 the bound. Communication is left out.
"""

from __future__ import annotations

from dataclasses import dataclass

from proxy.planning.accelerators import Accelerator
from proxy.planning.shapes import ModelShape

BANDWIDTH_EFFICIENCY = 0.8
PREFILL_EFFICIENCY, DECODE_EFFICIENCY = 0.45, 0.30
BATCH_MAX = 8192


@dataclass(frozen=True, slots=True)
class Point:
    """One batch on the roofline. `bound` is `memory` or `compute`; `expected_s` uses the efficiencies above."""

    batch: int
    flop: float
    bytes: float
    step_s: float
    expected_s: float
    bound: str

    @property
    def intensity(self) -> float:
        return self.flop / self.bytes

    @property
    def tokens_per_s(self) -> float:
        """Tokens per second of the whole batch at the bound."""
        return self.batch / self.step_s


@dataclass(frozen=True, slots=True)
class Roofline:
    """The roofline of a model on `ranks` cards. `kv_bytes`: cache bytes per token and rank."""

    shape: ModelShape
    card: Accelerator
    ranks: int
    kv_bytes: int

    @property
    def compute_dtype(self) -> str:
        """fp8 products need fp8 weights and SM 8.9; every 4-bit and int8 weight-only format computes in 16 bit."""
        name = self.shape.weights.name
        return name if name in ("fp8", "nvfp4") and self._has(name) else "fp16"

    def _has(self, name: str) -> bool:
        return ("fp4" if name == "nvfp4" else name) in self.card.tflops

    @property
    def flops(self) -> float:
        return self.card.flops("fp4" if self.compute_dtype == "nvfp4" else self.compute_dtype)

    @property
    def ridge(self) -> float:
        return self.flops / (self.card.bandwidth_gb_s * 1e9)

    def decode(self, batch: int, context: int) -> Point:
        """One token for each of `batch` sequences of `context` tokens."""
        read = self.shape.counted.step_bytes(self.shape.weights, batch) / self.ranks
        return self._point(batch, batch, context, read + batch * self.kv_bytes * context, DECODE_EFFICIENCY)

    def prefill(self, tokens: int) -> Point:
        """One prompt of `tokens` tokens in one step; attention sees half of them on average."""
        read = self.shape.counted.step_bytes(self.shape.weights, tokens) / self.ranks
        return self._point(1, tokens, tokens // 2, read + tokens * self.kv_bytes, PREFILL_EFFICIENCY)

    def _point(self, batch: int, tokens: int, context: int, moved: float, efficiency: float) -> Point:
        flop = tokens * (2 * self.shape.counted.active + self._attention_flop(context)) / self.ranks
        memory_s = moved / (self.card.bandwidth_gb_s * 1e9)
        compute_s = flop / self.flops
        expected = max(memory_s / BANDWIDTH_EFFICIENCY, compute_s / efficiency)
        bound = "memory" if memory_s >= compute_s else "compute"
        return Point(batch, flop, moved, max(memory_s, compute_s), expected, bound)

    def _attention_flop(self, context: int) -> int:
        """QK and PV products of one token over `context` cached tokens."""
        per_layer = sum(
            group.layers * (group.k_dim + group.v_dim or 2 * group.latent_dim)
            * min(context, group.window_tokens or context)
            for group in self.shape.groups
        )  # fmt: skip
        return 2 * self.shape.heads * per_layer

    def largest_batch(self, itl_s: float, context: int) -> int:
        """The most sequences whose expected step stays within `itl_s`; 0 when one alone does not."""
        if self.decode(1, context).expected_s > itl_s:
            return 0
        low, high = 1, BATCH_MAX
        while low < high:
            middle = (low + high + 1) // 2
            low, high = (middle, high) if self.decode(middle, context).expected_s <= itl_s else (low, middle - 1)
        return low

    def longest_prompt(self, ttft_s: float, longest: int) -> int:
        """The longest prompt, up to `longest`, whose expected prefill stays within `ttft_s`."""
        low, high = 0, longest
        while low < high:
            middle = (low + high + 1) // 2
            low, high = (middle, high) if self.prefill(middle).expected_s <= ttft_s else (low, middle - 1)
        return low
