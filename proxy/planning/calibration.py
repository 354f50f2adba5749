"""What a running engine printed or exports, and the overhead that follows from it.

    overhead = total * fraction - weights - KV      (of-total engines; of-free: (total - weights) - KV / fraction)

replaces every estimated subtraction of a plan. Log lines and metric names: vLLM `gpu_worker.py`, `kv_cache_utils.py`;
SGLang `memory_pool.py`; TensorRT-LLM `[MemUsageChange]` and `_util.py`; TGI launcher. "GB" in SGLang's log is GiB.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, fields, replace

from proxy.planning.accelerators import GIB
from proxy.planning.budget import Line, Provenance
from proxy.planning.capacity import CapacityPlan, PlanRequest
from proxy.planning.fields import PlanError

TEXT_MAX = 16 * 2**20
NUMBER = r"([0-9][0-9,]*\.?[0-9]*)"
# field -> patterns; the last match in the text wins, as engines repeat a line per rank or restart
LOG_PATTERNS: dict[str, tuple[str, ...]] = {
    "kv_gib": (
        rf"Available KV cache memory: {NUMBER} GiB",
        rf"reserved for KV Cache is {NUMBER} ?GiB",
        rf"Allocated {NUMBER} GiB for max tokens in paged KV cache",
        rf"SWAKVPool mem usage: {NUMBER} GB",
        rf"KV Cache is allocated\..{{0,200}}?KV size: {NUMBER} GB",
        rf"available KV cache memory when calculating max tokens: {NUMBER} GiB",
    ),
    "kv_tokens": (
        rf"GPU KV cache size: {NUMBER} tokens",
        rf"max tokens in paged KV cache \({NUMBER}\)",
        rf"SWAKVPool .{{0,200}}full size: {NUMBER}",
        rf"#tokens: {NUMBER}",
        rf"max_total_num_tokens={NUMBER}",
        rf"Setting max batch total tokens to {NUMBER}",
    ),
    "max_concurrency": (rf"Maximum concurrency for [0-9,]+ tokens per request: {NUMBER}x",),
    "blocks": (rf"# (?:GPU|cuda|CUDA|rocm) blocks: {NUMBER}", rf"KV-cache blocks: {NUMBER}, size: [0-9]+"),
    "block_tokens": (rf"KV-cache blocks: [0-9]+, size: {NUMBER}",),
    "weights_gib": (
        rf"(?:Loading model weights took|Model loading took) {NUMBER} Gi?B",
        rf"Load weight end\..{{0,300}}?mem usage={NUMBER} GB",
    ),
    "total_gib": (
        rf"total_gpu_memory \({NUMBER}GiB\)",
        rf"Free memory on device \([0-9.]+/{NUMBER} GiB\)",
        rf"total: {NUMBER} GiB, available",
        rf"device total memory {NUMBER} GiB",
        rf"Load weight begin\. avail mem={NUMBER} GB",
    ),
    "fraction": (
        rf"Desired GPU memory utilization is \({NUMBER},",
        rf"gpu_memory_utilization \({NUMBER}\)",
        rf"gpu_memory_utilization['\"]?[=:] ?{NUMBER}",
        rf"mem_fraction_static={NUMBER}",
        rf"fraction is set {NUMBER}",
    ),
    "free_gib": (rf"available: {NUMBER} GiB",),
    "context_tokens": (rf"Maximum concurrency for {NUMBER} tokens per request",),
}
SPLIT_KV = re.compile(rf"KV Cache is allocated\..{{0,200}}?K size: {NUMBER} GB, V size: {NUMBER} GB")
STATE_POOL = re.compile(
    rf"Mamba Cache is allocated\..{{0,200}}?conv_state size: {NUMBER} ?GB, ssm_state size: {NUMBER} ?GB"
)
CELLS = re.compile(rf"llama_kv_cache\w{{0,40}}: size = {{1,20}}{NUMBER} MiB \( {{0,20}}([0-9]+) cells")
OLD_CELLS = re.compile(rf"KV self size {{1,20}}= {{1,20}}{NUMBER} MiB")
CUDA_BUFFER = re.compile(rf"(?:CUDA|ROCm|Vulkan|Metal)[0-9]{{0,3}} model buffer size = {{1,20}}{NUMBER} MiB")
CACHE_CONFIG = re.compile(r"^(?:vllm|sglang)[:_]cache_config_info\{(.*)\}", re.MULTILINE)
LABEL = re.compile(r'(\w+)="([^"]*)"')
GAUGES: dict[str, tuple[str, ...]] = {
    "kv_tokens": ("sglang:max_total_num_tokens", "sglang_max_total_num_tokens", "tgi_batch_max_total_tokens"),
    "blocks": ("trtllm_kv_cache_max_blocks", "dynamo_frontend_model_total_kv_blocks"),
    "block_tokens": ("trtllm_kv_cache_tokens_per_block", "dynamo_frontend_model_kv_cache_block_size"),
    "running_cap": ("trtllm_max_batch_size_static", "dynamo_frontend_model_max_num_seqs"),
    "context_tokens": ("dynamo_frontend_model_context_length",),
}


@dataclass(frozen=True, slots=True)
class Observation:
    """Figures of one start-up log or one scrape; None where it did not tell. GiB are per GPU."""

    kv_gib: float | None = None
    kv_tokens: float | None = None
    max_concurrency: float | None = None
    blocks: float | None = None
    block_tokens: float | None = None
    weights_gib: float | None = None
    total_gib: float | None = None
    fraction: float | None = None
    free_gib: float | None = None
    context_tokens: float | None = None
    running_cap: float | None = None

    def known(self) -> dict[str, float]:
        return {item.name: value for item in fields(self) if (value := getattr(self, item.name)) is not None}

    @property
    def tokens(self) -> float | None:
        """Capacity in tokens, from the count itself or from blocks."""
        if self.kv_tokens is not None or self.blocks is None:
            return self.kv_tokens
        return self.blocks * (self.block_tokens or 16)


def read_log(text: str) -> Observation:
    """Figures of a start-up log."""
    found: dict[str, float] = {}
    for name, patterns in LOG_PATTERNS.items():
        for pattern in patterns:
            matches = re.findall(pattern, text[:TEXT_MAX])
            if matches:
                found[name] = float(matches[-1].replace(",", ""))
                break
    return Observation(**(found | _pools(text[:TEXT_MAX])))


def _pools(text: str) -> dict[str, float]:
    """Sizes that an engine prints in parts: SGLang's K, V and state pools, llama.cpp's caches and buffers in MiB."""
    found: dict[str, float] = {}
    split, state = SPLIT_KV.findall(text), STATE_POOL.findall(text)
    if split and "SWAKVPool" not in text:
        found["kv_gib"] = sum(_float(part) for part in (*split[-1], *(state[-1] if state else ())))
    caches = CELLS.findall(text)
    if caches:
        found |= {
            "kv_gib": sum(_float(size) for size, _ in caches) / 1024,
            "kv_tokens": max(float(n) for _, n in caches),
        }
    elif sizes := OLD_CELLS.findall(text):
        found["kv_gib"] = _float(sizes[-1]) / 1024
    if buffers := CUDA_BUFFER.findall(text):
        found["weights_gib"] = sum(map(_float, buffers)) / 1024
    return found


def _float(text: str) -> float:
    return float(text.replace(",", ""))


def read_metrics(text: str) -> Observation:
    """Figures of a Prometheus exposition."""
    found: dict[str, float] = {}
    for name, gauges in GAUGES.items():
        for gauge in gauges:
            match = re.search(
                rf"^{re.escape(gauge)}(?:\{{[^}}\n]{{0,2000}}\}})? ([0-9.e+]+)", text[:TEXT_MAX], re.MULTILINE
            )
            if match:
                found[name] = float(match[1])
                break
    info = CACHE_CONFIG.search(text[:TEXT_MAX])
    if info:
        found.update(_cache_config(dict(LABEL.findall(info[1]))))
    return Observation(**found)


def _cache_config(labels: dict[str, str]) -> dict[str, float]:
    """vLLM and SGLang export their cache configuration as label values; "None" occurs."""
    table = {
        "kv_tokens": "kv_cache_size_tokens",
        "max_concurrency": "kv_cache_max_concurrency",
        "blocks": "num_gpu_blocks" if "num_gpu_blocks" in labels else "num_pages",
        "block_tokens": "block_size" if "block_size" in labels else "page_size",
        "fraction": "gpu_memory_utilization",
    }
    numbers = {name: _number(labels.get(label, "")) for name, label in table.items()}
    return {name: value for name, value in numbers.items() if value is not None}


def _number(text: str) -> float | None:
    return float(text) if re.fullmatch(r"[0-9]{1,18}(\.[0-9]{1,20})?", text) else None


def observe(text: str) -> Observation:
    """Figures of a log or of a scrape, whichever the text is. Raises PlanError when it holds none that help."""
    seen = read_metrics(text)
    return checked(seen if seen.known() else read_log(text))


def observe_engine(text: str, kv_tokens: int | None, context_tokens: int | None) -> Observation:
    """Figures of a running engine: its scrape, and what its own pages told where the scrape does not."""
    seen = read_metrics(text)
    return checked(
        replace(
            seen,
            kv_tokens=seen.kv_tokens if seen.tokens is not None else kv_tokens,
            context_tokens=seen.context_tokens or context_tokens,
        )
    )


def checked(seen: Observation) -> Observation:
    """`seen`, when it holds a size. Raises PlanError otherwise."""
    if seen.kv_gib is None and seen.tokens is None and seen.free_gib is None:
        raise PlanError(
            "--calibrate: no KV cache size found; give the engine's start-up log at info level, or its /metrics URL"
        )
    return seen


def observed_kv_bytes(plan: CapacityPlan, seen: Observation) -> int:
    """KV bytes of one rank, from the bytes printed, the concurrency of a hybrid, or the tokens."""
    if seen.kv_gib is not None:
        return int(seen.kv_gib * GIB)
    if not plan.shape.uniform and seen.max_concurrency is not None:
        longest = int(seen.context_tokens or plan.context_tokens)
        return int(seen.max_concurrency * plan.cache.request_bytes(longest))
    tokens = seen.tokens or 0
    return int(tokens * plan.token_bytes / max(1, plan.request.dp * plan.request.context_parallel))


def solved_overhead(plan: CapacityPlan, seen: Observation) -> Line:
    """The overhead that makes the plan give what the engine has. Raises PlanError when it would be negative."""
    total = int(seen.total_gib * GIB) if seen.total_gib else plan.budget.bytes_of("gpu memory")
    weights = int(seen.weights_gib * GIB) if seen.weights_gib else plan.weights_bytes
    fraction = seen.fraction or plan.fraction
    kv_bytes = observed_kv_bytes(plan, seen)
    if plan.engine.name == "tensorrt-llm":
        overhead = total - weights - int(kv_bytes / fraction)
    else:
        kept = 0.9 if plan.engine.name == "tgi" else 1.0
        overhead = int(total * fraction * kept) - weights - kv_bytes
    if overhead < -total // 100:
        raise PlanError(
            f"--calibrate: {kv_bytes / GIB:.2f} GiB of KV cache exceed what total x fraction - weights leaves;"
            " check --accelerator, --fraction, --weights-gib and --count"
        )
    return Line("overhead", -overhead, Provenance.LIVE, -overhead, -overhead, "solved from the log or scrape")


def calibrated_request(plan: CapacityPlan, seen: Observation) -> PlanRequest:
    """The request of `plan` with the observed facts in it, for `plan_capacity` to run again."""
    request = replace(
        plan.request,
        gpu_memory_gib=seen.total_gib or plan.request.gpu_memory_gib,
        weights_gib=seen.weights_gib or plan.request.weights_gib,
        fraction=seen.fraction or plan.request.fraction,
    )
    if plan.engine.name == "tensorrt-llm" and seen.free_gib is not None:
        return replace(request, free_memory_gib=seen.free_gib)
    return replace(request, overhead=solved_overhead(plan, seen))
