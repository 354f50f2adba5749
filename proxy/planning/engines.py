"""What each engine's version means for a plan: its fraction, its defaults, its way of counting.

vLLM        KV = total*f - weights - activations - non-torch (- graphs from 0.21); f 0.90, 0.92 from 0.21
SGLang      KV = free_before_load*f - weights; f by tensor parallelism, from 0.5 on by card (server_args.py)
TensorRT    KV = (total - weights - activations - runtime) * f; f 0.90 of FREE memory
TGI         KV = total*(0.9*f) - weights - activations; f 1.0
llama.cpp   KV = total - weights - compute buffer, the context is fixed at start
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from proxy.planning.accelerators import LARGE_CARD_GIB, Accelerator
from proxy.planning.fields import PlanError

ENGINE_NAMES: dict[str, str] = {
    "vllm": "vllm", "sglang": "sglang",
    "tensorrt-llm": "tensorrt-llm", "trtllm": "tensorrt-llm", "trt-llm": "tensorrt-llm", "tensorrt_llm": "tensorrt-llm",
    "dynamo": "tensorrt-llm",
    "tgi": "tgi", "text-generation-inference": "tgi",
    "llama.cpp": "llama.cpp", "llamacpp": "llama.cpp", "llama-cpp": "llama.cpp",
}  # fmt: skip
V1_RELEASE = (0, 8)  # first vLLM whose default engine chunks prefill
HYBRID_RELEASE = (0, 9)  # first whose manager frees what a window has passed
LOW_ACTIVATION_RELEASE = (0, 19)
ALIGNED_STATE_RELEASE = (0, 20)
LENGTH_LABEL_RELEASE = (0, 21)
GRAPH_RELEASE = (0, 21)
SGLANG_STATIC = ((16, 0.79), (8, 0.81), (4, 0.85), (2, 0.87), (1, 0.88))  # by tensor parallelism, up to 0.4
SGLANG_RESERVE_RELEASE = (0, 5)  # first that reserves by card instead: (GiB below, prefill chunk, graph batch)
SGLANG_CARDS = ((20, 2048, 8), (35, 2048, 24), (60, 4096, 32), (160, 8192, 256), (1e6, 16384, 512))
SGLANG_WIDE_GRAPHS = {24: 80, 32: 160, 256: 512}  # with four ranks and more
BLOCK_TOKENS = {"vllm": 16, "sglang": 1, "tensorrt-llm": 32, "tgi": 1, "llama.cpp": 1}
FRACTIONS = {"tensorrt-llm": 0.90, "tgi": 1.0, "llama.cpp": 1.0}


@dataclass(frozen=True, slots=True)
class Engine:
    """An engine and its version as (major, minor); an empty version is None."""

    name: str
    version: tuple[int, int] | None = None

    def since(self, release: tuple[int, int]) -> bool:
        """Known to be that release or a later one."""
        return self.version is not None and self.version >= release

    def before(self, release: tuple[int, int]) -> bool:
        """Known to be older than that release."""
        return self.version is not None and self.version < release

    @property
    def keeps_windows_whole(self) -> bool:
        """Sliding layers cost as much as full ones: vLLM before its hybrid manager, TensorRT-LLM without
        `max_attention_window`."""
        return self.name == "tensorrt-llm" or (self.name == "vllm" and self.before(HYBRID_RELEASE))

    def default_fraction(self, ranks: int, memory_gib: float) -> float:
        if self.name == "sglang" and self.since(SGLANG_RESERVE_RELEASE):
            return _sglang_fraction(ranks, memory_gib)
        if self.name == "sglang":
            return next(fraction for least, fraction in SGLANG_STATIC if ranks >= least)
        if self.name == "vllm":
            return 0.92 if self.since(GRAPH_RELEASE) else 0.90
        return FRACTIONS[self.name]

    def default_seqs(self, card: Accelerator, memory_gib: float) -> int:
        """vLLM's max_num_seqs: 1024 on cards of 70 GiB and more that are not A100, else 256."""
        return 1024 if _generous(card, memory_gib) and not self.before(V1_RELEASE) else 256

    def default_batched(self, card: Accelerator, memory_gib: float, longest: int) -> int:
        """Prefill tokens of one step of a server."""
        if self.name == "vllm" and self.before(V1_RELEASE):
            return max(longest, 2048)  # the first engine did not chunk: one step holds a whole prompt
        if self.name == "vllm" and not _generous(card, memory_gib):
            return 2048
        if self.name == "sglang":
            return next(chunk for below, chunk, _ in SGLANG_CARDS if memory_gib < below)
        return 4096 if self.name == "tgi" else 8192


def _generous(card: Accelerator, memory_gib: float) -> bool:
    """vLLM's larger serving defaults: cards of 70 GiB and more, the A100 left out."""
    return memory_gib >= LARGE_CARD_GIB and not card.name.startswith("a100")


def _sglang_fraction(ranks: int, memory_gib: float) -> float:
    """1 - reserved / memory; MiB reserved: 512 + 1.5 * chunk + 2 * graph batch + 128 * ranks, 10 GiB above 60."""
    _, chunk, graphs = next(row for row in SGLANG_CARDS if memory_gib < row[0])
    graphs = SGLANG_WIDE_GRAPHS.get(graphs, graphs) if ranks >= 4 else graphs
    reserved = 512 + 1.5 * chunk + 2 * graphs + 128 * ranks
    if memory_gib > 60:
        reserved = max(reserved, 10 * 1024)
    return max(0.1, round(1 - reserved / (memory_gib * 1024), 3))


def read_engine(name: str, version: str = "") -> Engine:
    """Engine from the two flags. Raises PlanError for an unknown name."""
    canonical = ENGINE_NAMES.get(name.lower())
    if canonical is None:
        raise PlanError(f"--engine {name!r} is unknown; use one of: {', '.join(dict.fromkeys(ENGINE_NAMES.values()))}")
    found = re.match(r"\s*[vb]?(\d{1,5})(?:\.(\d{1,4}))?", version)  # llama.cpp counts builds: b8247
    if version and not found:
        raise PlanError(f"--engine-version {version!r} is not a version; give it as 0.21 or 0.21.0")
    return Engine(canonical, (int(found[1]), int(found[2] or 0)) if found and version else None)
