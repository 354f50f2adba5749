"""CapacityPlan: how many tokens and requests fit, which bound holds, and how sure that is.

    tokens        = KV bytes of a rank as its engine lays them out (kv_cache)
    worst case    = requests of max_model_len that fit
    typical       = requests of utilization * max_model_len that fit          (0.25: chat)
    latency       = typical * latency_factor                                  (0.60)
    conservative  = requests of 0.35 * max_model_len that fit, * 0.50
    slo           = the largest batch whose expected decode step stays within the inter-token target (roofline)
    recommended   = min(typical, slo, max_num_seqs), and the smallest of them is the bound

Every stage has its own type: shape -> cache layout -> budget -> pool -> seats. Bytes are whole numbers.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction

from proxy.planning.accelerators import GIB, Accelerator
from proxy.planning.budget import Budget, BudgetInput, Line, Provenance, gib, make_budget, plus
from proxy.planning.engines import (
    ALIGNED_STATE_RELEASE,
    BLOCK_TOKENS,
    LENGTH_LABEL_RELEASE,
    Engine,
    read_engine,
)
from proxy.planning.fields import PlanError
from proxy.planning.kv_cache import Cache, CacheOptions, Entry, build_cache, token_bytes, without_windows
from proxy.planning.layers import Kind
from proxy.planning.parameters import HALF_BYTES
from proxy.planning.precision import kv_dtype_name, weight_format_named
from proxy.planning.roofline import Roofline
from proxy.planning.shapes import ModelShape
from proxy.planning.split_cache import SplitCache, build_split_cache

UTILIZATION, LATENCY_FACTOR = 0.25, 0.60
CONSERVATIVE_UTILIZATION, CONSERVATIVE_FACTOR = 0.35, 0.50
TRT_ALLOCATOR_SHARE = 0.015  # of the pool, kept back by TensorRT-LLM's block allocator
WEIGHT_SLACK_FILE, WEIGHT_SLACK_LOW, WEIGHT_SLACK_HIGH = 0.01, 0.04, 0.08
NOMINAL_TOLERANCE = 0.02
CONTEXT_DEFAULT = 8192
AMPERE = 80
AnyCache = Cache | SplitCache


@dataclass(frozen=True, slots=True)
class PlanRequest:
    """What the user asks. None means: the engine's own default. GiB figures are per GPU."""

    engine: str = "vllm"
    engine_version: str = ""
    count: int = 1
    tp: int | None = None  # count / (pp * dp)
    pp: int = 1
    dp: int = 1
    context_parallel: int = 1
    kv_dtype: str = "auto"
    weight_dtype: str = "auto"
    fraction: float | None = None
    max_model_len: int | None = None
    max_num_seqs: int | None = None
    max_num_batched_tokens: int | None = None
    gpu_memory_gib: float | None = None
    free_memory_gib: float | None = None
    weights_gib: float | None = None
    overhead: Line | None = None
    kv_bytes_per_token: int | None = None
    block_tokens: int | None = None
    speculative_layers: int = 0
    eager: bool = False
    uniform_windows: bool = False  # sliding layers cost as much as full ones
    language_only: bool = False  # the vision tower is not loaded
    utilization: float = UTILIZATION
    latency_factor: float = LATENCY_FACTOR
    itl_ms: float | None = None
    ttft_ms: float | None = None


@dataclass(frozen=True, slots=True)
class Seats:
    """Concurrent requests of one engine replica times its data parallelism. `slo` is None without a target."""

    worst_case: int
    typical: int
    latency_adjusted: int
    conservative: int
    slo: int | None
    worst_case_ratio: float = 0.0  # before rounding, as engines print it


@dataclass(frozen=True, slots=True)
class CapacityPlan:
    """The answer. Byte figures are per rank; tokens and seats are of the whole deployment."""

    request: PlanRequest
    shape: ModelShape
    card: Accelerator
    engine: Engine
    tp: int
    fraction: float
    kv_dtype: str
    context_tokens: int
    max_num_seqs: int
    batched_tokens: int
    token_bytes: int
    cache: AnyCache
    budget: Budget
    kv_tokens: int
    kv_tokens_low: int
    kv_tokens_high: int
    seats: Seats
    bound: str
    recommended: int
    notes: tuple[str, ...] = ()

    @property
    def kv_bytes(self) -> int:
        return self.budget.kv_bytes

    @property
    def weights_bytes(self) -> int:
        return -self.budget.bytes_of("weights")

    @property
    def roofline(self) -> Roofline:
        return Roofline(self.shape, self.card, self.tp * self.request.pp, self.token_bytes)

    def fits(self) -> bool:
        """Whether one request of the longest length has room."""
        return self.seats.worst_case_ratio >= 1


def plan_capacity(
    shape: ModelShape, card: Accelerator, request: PlanRequest, disk_weights_bytes: int | None = None
) -> CapacityPlan:
    """The plan. `disk_weights_bytes`: all weights as files give them. Raises PlanError for an impossible request."""
    engine = read_engine(request.engine, request.engine_version)
    tp = checked_parallelism(shape, request)
    shape = _chosen_shape(shape, request, engine)
    longest = request.max_model_len or shape.context_tokens or CONTEXT_DEFAULT
    total = _total_bytes(card, request)
    fraction = request.fraction or engine.default_fraction(tp * request.pp, total / GIB)
    given = BudgetInput(
        shape=shape,
        card=card,
        engine=engine,
        tp=tp,
        fraction=fraction,
        total_bytes=total,
        total_given=_exact_total(card, request),
        weights=_weights_line(shape, request, tp, disk_weights_bytes),
        max_num_seqs=request.max_num_seqs or engine.default_seqs(card, total / GIB),
        max_num_seqs_given=request.max_num_seqs is not None,
        batched_tokens=request.max_num_batched_tokens or engine.default_batched(card, total / GIB, longest),
        eager=request.eager,
        overhead=request.overhead,
        free_bytes=gib(request.free_memory_gib) if request.free_memory_gib is not None else None,
    )
    return _fill(given, request, longest, make_budget(given))


def _fill(given: BudgetInput, request: PlanRequest, longest: int, budget: Budget) -> CapacityPlan:
    """Budget -> pool -> seats."""
    shape, engine = given.shape, given.engine
    kv_dtype = shape.weights.kv_dtype or shape.dtype if request.kv_dtype == "auto" else kv_dtype_name(request.kv_dtype)
    size = request.kv_bytes_per_token or token_bytes(shape, kv_dtype, given.tp, request.pp)
    cache = _cache(given, request, kv_dtype)
    slo = _slo_seats(Roofline(shape, given.card, given.tp * request.pp, size), request, longest)
    seats = count_seats(cache, _seat_bytes(engine, budget.kv_bytes), longest, request, slo)
    bound, recommended = _bound(seats, request.max_num_seqs, request.dp)
    low, middle, high = (
        cache.tokens(pool, longest) * request.dp for pool in (budget.low, budget.kv_bytes, budget.high)
    )
    plan = CapacityPlan(
        request=request,
        shape=shape,
        card=given.card,
        engine=engine,
        tp=given.tp,
        fraction=given.fraction,
        kv_dtype=kv_dtype,
        context_tokens=longest,
        max_num_seqs=given.max_num_seqs,
        batched_tokens=given.batched_tokens,
        token_bytes=size,
        cache=cache,
        budget=budget,
        kv_tokens=middle,
        kv_tokens_low=low,
        kv_tokens_high=high,
        seats=seats,
        bound=bound,
        recommended=recommended,
    )
    return replace(plan, notes=_notes(plan))


def checked_parallelism(shape: ModelShape, request: PlanRequest) -> int:
    """Tensor parallelism of the request. Raises PlanError unless TP x PP x DP is the count and TP divides the heads."""
    tp = request.tp if request.tp is not None else max(1, request.count // (request.pp * request.dp))
    if tp * request.pp * request.dp != request.count:
        raise PlanError(
            f"tp {tp} x pp {request.pp} x dp {request.dp} = {tp * request.pp * request.dp}, but --count is"
            f" {request.count}; make them equal"
        )
    if shape.heads and shape.heads % tp:
        raise PlanError(f"--tp {tp} does not divide the {shape.heads} attention heads; use a divisor")
    if shape.kv_heads and shape.kv_heads % tp and tp % shape.kv_heads:
        raise PlanError(f"--tp {tp} neither divides nor is a multiple of the {shape.kv_heads} KV heads; use another")
    if request.pp > shape.layers:
        raise PlanError(f"--pp {request.pp} exceeds the {shape.layers} layers; use fewer stages")
    return tp


def _chosen_shape(shape: ModelShape, request: PlanRequest, engine: Engine) -> ModelShape:
    """The shape with the weight format, draft layers and window handling that the request asks for."""
    if request.weight_dtype != "auto":
        shape = replace(
            shape, weights=replace(weight_format_named(request.weight_dtype), kv_dtype=shape.weights.kv_dtype)
        )
    crossing = any(group.kind is Kind.CROSS for group in shape.groups)
    if request.uniform_windows or (engine.keeps_windows_whole and (engine.name == "vllm" or not crossing)):
        shape = without_windows(shape)
    if request.language_only:
        shape = replace(shape, tower=None)
    return shape.with_draft(request.speculative_layers)


def _exact_total(card: Accelerator, request: PlanRequest) -> bool:
    """A given size counts as exact unless it is the marketing number of the card (80 for an H100 of 79.2 GiB)."""
    if request.gpu_memory_gib is None:
        return False
    return not (float(request.gpu_memory_gib).is_integer() and _is_nominal(card, request.gpu_memory_gib))


def _is_nominal(card: Accelerator, size_gib: float) -> bool:
    return abs(size_gib - card.nominal_gb) <= NOMINAL_TOLERANCE * card.nominal_gb


def _total_bytes(card: Accelerator, request: PlanRequest) -> int:
    exact = _exact_total(card, request) and request.gpu_memory_gib is not None
    return gib(request.gpu_memory_gib if exact and request.gpu_memory_gib is not None else card.usable_gib)


def _weights_line(shape: ModelShape, request: PlanRequest, tp: int, disk_bytes: int | None) -> Line:
    """Weights of one rank as a subtraction."""
    if request.weights_gib is not None:
        size = gib(request.weights_gib)
        return plus("weights", -size, Provenance.EXACT, note="given, per GPU")
    ranks = tp * request.pp
    if disk_bytes is not None and request.weight_dtype == "auto":
        size = disk_bytes // ranks
        return plus("weights", -size, Provenance.FILE, int(WEIGHT_SLACK_FILE * size), f"files / {ranks} ranks")
    if not shape.weights.known:
        raise PlanError(
            f"config.json: quantization method {shape.weights.name!r} names no bit width; give --weights-gib, or point"
            " --model at a folder with the safetensors files"
        )
    whole = shape.counted.weight_bytes(shape.weights) + (int(HALF_BYTES) * shape.tower.parameters if shape.tower else 0)
    size = whole // ranks
    low, high = int(size * (1 - WEIGHT_SLACK_LOW)), int(size * (1 + WEIGHT_SLACK_HIGH))
    tower = f" + {shape.tower.parameters / 1e9:.2f} B of the vision tower" if shape.tower else ""
    note = f"{shape.counted.total / 1e9:.2f} B parameters as {shape.weights.name}{tower} / {ranks} ranks"
    return Line("weights", -size, Provenance.ESTIMATED, -high, -low, note)


def _cache(given: BudgetInput, request: PlanRequest, kv_dtype: str) -> AnyCache:
    engine = given.engine
    block = request.block_tokens or BLOCK_TOKENS[engine.name]
    if request.kv_bytes_per_token is not None:
        entry = Entry(block, Fraction(request.kv_bytes_per_token * block))
        return Cache((entry,), True, parallel_contexts=request.context_parallel)
    options = CacheOptions(
        kv_dtype=kv_dtype,
        tp=given.tp,
        pp=request.pp,
        block_tokens=block,
        batched_tokens=given.batched_tokens,
        unified=engine.name == "vllm",
        label=_label(engine),
        state_blocks=2 if engine.name == "vllm" and not engine.before(ALIGNED_STATE_RELEASE) else 1,
        parallel_contexts=request.context_parallel,
    )
    if engine.name == "sglang" and not given.shape.uniform:
        return build_split_cache(given.shape, options)
    return build_cache(given.shape, options)


def _label(engine: Engine) -> str:
    if engine.name == "vllm" and engine.before(LENGTH_LABEL_RELEASE):
        return "groups"
    return "lengths"


def _seat_bytes(engine: Engine, kv_bytes: int) -> int:
    return int(kv_bytes * (1 - TRT_ALLOCATOR_SHARE)) if engine.name == "tensorrt-llm" else kv_bytes


def count_seats(cache: AnyCache, kv_bytes: int, longest: int, request: PlanRequest, slo: int | None) -> Seats:
    """Seats by length, times data parallelism."""

    def fit(share: float) -> float:
        return cache.seats(kv_bytes, max(1, int(longest * share))) * request.dp

    typical = fit(request.utilization)
    return Seats(
        worst_case=int(fit(1.0)),
        typical=int(typical),
        latency_adjusted=int(typical * request.latency_factor),
        conservative=int(fit(CONSERVATIVE_UTILIZATION) * CONSERVATIVE_FACTOR),
        slo=slo,
        worst_case_ratio=fit(1.0),
    )


def _slo_seats(roofline: Roofline, request: PlanRequest, longest: int) -> int | None:
    if request.itl_ms is None:
        return None
    context = max(1, int(longest * request.utilization))
    return roofline.largest_batch(request.itl_ms / 1e3, context) * request.dp


def _bound(seats: Seats, max_num_seqs: int | None, dp: int) -> tuple[str, int]:
    """The smallest of the bounds that are known, and its name."""
    bounds = {"memory": seats.typical}
    if seats.slo is not None:
        bounds["latency"] = seats.slo
    if max_num_seqs is not None:
        bounds["max_num_seqs"] = max_num_seqs * dp
    name = min(bounds, key=lambda key: bounds[key])
    return name, bounds[name]


def _notes(plan: CapacityPlan) -> tuple[str, ...]:
    """What the user should know before trusting the figures."""
    shape, tp, longest = plan.shape, plan.tp, plan.context_tokens
    notes = list(shape.notes)
    if not plan.fits():
        notes.append(f"one request of {longest} tokens does not fit: lower --max-model-len or add memory")
    if shape.kv_heads and tp > shape.kv_heads:
        notes.append(f"tp {tp} exceeds the {shape.kv_heads} KV heads: they replicate, capacity grows no further")
    if shape.latent and tp > 1:
        notes.append("latent attention: the cache is whole on every rank, tensor parallelism does not divide it")
    if shape.context_tokens and longest > shape.context_tokens:
        notes.append(f"--max-model-len {longest} exceeds the model's {shape.context_tokens}")
    if plan.kv_dtype == "fp8" and plan.card.vendor == "nvidia" and plan.card.sm < AMPERE:
        notes.append(f"{plan.card.name} (SM {plan.card.sm / 10:g}) has no fp8 cache kernels in most engines")
    if plan.engine.version is None and plan.engine.name == "vllm" and not shape.uniform:
        notes.append("hybrid cache: the printed token count depends on the version; set --engine-version")
    return tuple(notes)
