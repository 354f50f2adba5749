"""The memory budget of one rank: every subtraction a line with its provenance and its own band.

    vLLM activation peak = max(c * max_num_seqs * vocabulary, batched * (6*intermediate/tp + 6*hidden), vision)

c = 38.9 B: the dummy sampler run keeps float32 logits and copies of them (38.3-41.2 B on start-up logs of 0.6-0.11,
19-23 B from 0.19 on); the second term is the prefill step. TensorRT-LLM's activation peak is
`2 * max_num_tokens * heads*head_dim * k(tp)` (+ the expert workspace `4/128 * tokens * width * experts * chosen`), with
k and the runtime share from the public aiconfigurator backend constants; NCCL's share by tp from its system files.
The band of the sum adds the bands of the lines: no line is assumed to cancel another.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum

from proxy.planning.accelerators import GIB, Accelerator
from proxy.planning.engines import GRAPH_RELEASE, LOW_ACTIVATION_RELEASE, V1_RELEASE, Engine
from proxy.planning.shapes import ModelShape

SAMPLER_BYTES, SAMPLER_BYTES_LOW_RELEASE = 38.9, 21.0
NCCL_GIB = ((4, 0.50), (2, 0.42), (1, 0.0))  # TensorRT-LLM, by tp
LINK_GIB = ((4, 1.70), (2, 0.45), (1, 0.0))  # PyTorch engines on switched cards; 0.95-2.1 printed at tp 4 and 8
BUS_GIB = 0.10  # on cards without NVLink, at any tp: 0.20 printed beside a context of 0.13
TRT_RUNTIME_GIB = 2.7  # 3.5 GiB of a nominal 80 GiB card, of which 79.2 are usable
TRT_ACTIVATION = {"moe": (22, 13, 10), "llama": (11, 6.5, 5), "other": (10, 6, 5)}  # tp 1, 2, 4 and more
TRT_LEAST_BYTES = 70 * 2**20
MOE_SCALE_BLOCK, MOE_SCALE_BYTES = 128, 4
GRAPH_SHARE = 0.0055  # "0.8500 is equivalent to 0.8445" in vLLM 0.21's start-up log
SGLANG_CONTEXT_GIB = 0.5  # CUDA context before the weights are loaded
TGI_WIGGLE = 0.90
LLAMACPP_BUFFER_GIB = 0.6


class Provenance(StrEnum):
    """Where a figure comes from."""

    EXACT = "exact"  # given by the user or fixed by the engine's arithmetic
    FILE = "from-file"
    ESTIMATED = "estimated"
    LIVE = "live"


@dataclass(frozen=True, slots=True)
class Line:
    """One signed entry of the budget, in bytes, and its bounds: low <= bytes <= high."""

    name: str
    bytes: int
    provenance: Provenance
    low: int
    high: int
    note: str = ""


@dataclass(frozen=True, slots=True)
class Budget:
    """Lines that add up to the KV cache of one rank, in bytes."""

    lines: tuple[Line, ...]

    @property
    def kv_bytes(self) -> int:
        return max(0, sum(line.bytes for line in self.lines))

    @property
    def low(self) -> int:
        return max(0, sum(line.low for line in self.lines))

    @property
    def high(self) -> int:
        return max(0, sum(line.high for line in self.lines))

    def bytes_of(self, name: str) -> int:
        return sum(line.bytes for line in self.lines if line.name == name)


@dataclass(frozen=True, slots=True)
class BudgetInput:
    """What a budget is made from. Bytes are of one rank; `*_exact` say that the user or a live source gave them."""

    shape: ModelShape
    card: Accelerator
    engine: Engine
    tp: int
    fraction: float
    total_bytes: int
    total_given: bool
    weights: Line
    max_num_seqs: int
    max_num_seqs_given: bool
    batched_tokens: int
    eager: bool = False
    overhead: Line | None = None  # calibrated: replaces every estimated subtraction
    free_bytes: int | None = None  # measured free memory after load (TensorRT-LLM, TGI)


def gib(value: float) -> int:
    return int(value * GIB)


def plus(name: str, size: int, provenance: Provenance, slack: int = 0, note: str = "") -> Line:
    return Line(name, size, provenance, size - slack, size + slack, note)


def minus(name: str, size: int, low: int, high: int, note: str) -> Line:
    """An estimated subtraction whose magnitude lies in low..high."""
    return Line(name, -size, Provenance.ESTIMATED, -high, -low, note)


def make_budget(given: BudgetInput) -> Budget:
    """The budget by the engine's own arithmetic."""
    lines = ENGINES[given.engine.name](given)
    if given.overhead is not None:  # solved against these very lines: what one of them gets wrong, it makes up for
        lines = [replace(line, low=line.bytes, high=line.bytes) for line in lines]
    return Budget(tuple(lines))


def total_line(given: BudgetInput) -> Line:
    if given.total_given:
        return plus("gpu memory", given.total_bytes, Provenance.EXACT, note="given")
    slack = gib(0.3)
    return plus("gpu memory", given.total_bytes, Provenance.FILE, slack, f"usable memory of {given.card.name}")


def nccl_bytes(tp: int) -> int:
    return gib(next(size for least, size in NCCL_GIB if tp >= least))


def link_bytes(given: BudgetInput) -> int:
    """Communication buffers of a PyTorch engine on one rank."""
    if given.tp == 1:
        return 0
    return gib(next(size for least, size in LINK_GIB if given.tp >= least) if given.card.switched else BUS_GIB)


def sampler_peak(given: BudgetInput) -> Line:
    """vLLM's activation peak: the sampler's dummy run, the prefill step or the vision tower, whichever is largest."""
    shape = given.shape
    late = given.engine.since(LOW_ACTIVATION_RELEASE)
    rows = given.max_num_seqs * shape.vocabulary
    prefill = int(given.batched_tokens * (6 * shape.intermediate / given.tp + 6 * shape.hidden))
    v1 = not given.engine.before(V1_RELEASE)
    pictures = shape.tower.peak_bytes(given.batched_tokens) if shape.tower and v1 else 0
    size = max(int((SAMPLER_BYTES_LOW_RELEASE if late else SAMPLER_BYTES) * rows), prefill, pictures)
    low = max(int((12 if late else 30) * rows * (1 if given.max_num_seqs_given else 0.25)), prefill // 2)
    high = max(int((40 if late else 46) * rows * (1 if given.max_num_seqs_given else 1.5)), int(1.3 * prefill))
    known = "given" if given.max_num_seqs_given else "assumed, set --max-num-seqs"
    note = f"peak of the profiling run: {given.max_num_seqs} sequences ({known}) x vocabulary {shape.vocabulary}"
    if pictures == size:
        note = "peak of the profiling run: the largest picture in the vision tower; 0 with --language-model-only"
    return minus("activations", size, low, max(high, 2 * pictures) + gib(0.3), note)


def _vllm(given: BudgetInput) -> list[Line]:
    total = total_line(given)
    unused = given.total_bytes - int(given.total_bytes * given.fraction)
    kept = Line("outside the fraction", -unused, Provenance.EXACT, -unused, -unused, f"1 - {given.fraction:g} of total")
    lines = [total, kept, given.weights]
    if given.overhead is not None:
        return [*lines, given.overhead]
    outside = gib(0.13) + link_bytes(given)
    most = gib(1.9) if given.engine.before(V1_RELEASE) else outside + gib(0.5)
    lines += [sampler_peak(given), minus("non-torch", outside, outside // 2, most, "CUDA context, NCCL")]
    graphs = int(GRAPH_SHARE * given.total_bytes)
    if given.engine.since(GRAPH_RELEASE) and not given.eager:
        lines.append(minus("cuda graphs", graphs, 0, 3 * graphs, "subtracted from 0.21 on; 0 with --enforce-eager"))
    elif given.engine.version is None and not given.eager:
        lines.append(minus("cuda graphs", 0, 0, graphs, "0 before 0.21; set --engine-version"))
    return lines


def _sglang(given: BudgetInput) -> list[Line]:
    context = 0 if given.total_given or given.overhead else gib(SGLANG_CONTEXT_GIB) + link_bytes(given)
    free = given.total_bytes - context
    kept = free - int(free * given.fraction)
    lines = [total_line(given)]
    if context:
        lines.append(minus("context before load", context, context // 2, 2 * context, "CUDA context, NCCL"))
    note = f"1 - {given.fraction:g} of free memory before load: activations, graphs"
    lines += [Line("outside the static fraction", -kept, Provenance.EXACT, -kept, -kept, note), given.weights]
    return [*lines, given.overhead] if given.overhead else lines


def _of_free(given: BudgetInput, lines: list[Line]) -> list[Line]:
    """TensorRT-LLM: the fraction is of what is free once weights and activations are in."""
    left = (sum(line.bytes for line in lines), sum(line.low for line in lines), sum(line.high for line in lines))
    kept, low, high = (free - int(free * given.fraction) for free in (max(0, size) for size in left))
    note = f"1 - {given.fraction:g} of free memory"
    return [*lines, Line("outside the free fraction", -kept, Provenance.EXACT, -high, -low, note)]


def trt_activation(given: BudgetInput) -> Line:
    shape, tokens = given.shape, given.batched_tokens
    experts = shape.parameters.expert_count if shape.parameters else 0
    kind = "moe" if experts else "llama" if "llama" in shape.architecture.lower() else "other"
    factor = TRT_ACTIVATION[kind][min(2, given.tp.bit_length() - 1)]
    width = shape.heads * max((group.k_dim for group in shape.groups), default=0) or shape.hidden
    size = 2 * tokens * width * factor
    if experts and shape.parameters:
        chosen = float(shape.parameters.chosen_share) * experts
        size += tokens * width * experts * chosen / MOE_SCALE_BLOCK * MOE_SCALE_BYTES
    total = max(int(size), TRT_LEAST_BYTES)
    return minus("activations", total, total // 2, 2 * total, f"dry run at max_num_tokens {tokens}")


def _tensorrt(given: BudgetInput) -> list[Line]:
    if given.free_bytes is not None:
        return _of_free(given, [plus("free after load", given.free_bytes, Provenance.EXACT, note="given or printed")])
    lines = [total_line(given), given.weights]
    if given.overhead is not None:
        return _of_free(given, [*lines, given.overhead])
    runtime = gib(TRT_RUNTIME_GIB) + nccl_bytes(given.tp)
    runtime_line = minus("runtime", runtime, runtime // 3, 2 * runtime, "CUDA context, libraries, NCCL, workspaces")
    return _of_free(given, [*lines, trt_activation(given), runtime_line])


def _tgi(given: BudgetInput) -> list[Line]:
    kept = given.total_bytes - int(given.total_bytes * given.fraction * TGI_WIGGLE)
    note = f"1 - {given.fraction:g} x {TGI_WIGGLE:g} (TGI_WIGGLE_ROOM) of total"
    lines = [
        total_line(given),
        Line("outside the fraction", -kept, Provenance.EXACT, -kept, -kept, note),
        given.weights,
    ]
    if given.overhead is not None:
        return [*lines, given.overhead]
    warmup = int(given.batched_tokens * (6 * given.shape.intermediate / given.tp + 6 * given.shape.hidden))
    outside = gib(0.3) + link_bytes(given)
    lines.append(minus("activations", warmup, warmup // 2, 2 * warmup, f"warm-up prefill of {given.batched_tokens}"))
    return [*lines, minus("non-torch", outside, outside // 2, 2 * outside, "CUDA context, NCCL")]


def _llamacpp(given: BudgetInput) -> list[Line]:
    kept = given.total_bytes - int(given.total_bytes * given.fraction)
    lines = [total_line(given), given.weights]
    if kept:
        lines.append(Line("outside the fraction", -kept, Provenance.EXACT, -kept, -kept, f"1 - {given.fraction:g}"))
    if given.overhead is not None:
        return [*lines, given.overhead]
    buffer = gib(LLAMACPP_BUFFER_GIB)
    return [*lines, minus("compute buffer", buffer, buffer // 3, 3 * buffer, "context and scratch buffers")]


ENGINES = {"vllm": _vllm, "sglang": _sglang, "tensorrt-llm": _tensorrt, "tgi": _tgi, "llama.cpp": _llamacpp}
