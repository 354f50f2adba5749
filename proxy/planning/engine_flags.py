"""A plan as the command line and YAML of each engine, and as the Penstock configuration with the matching ceiling.

Flags: vLLM `EngineArgs`, SGLang `server_args.py`, `trtllm-serve` / LLM-API YAML and `dynamo.trtllm`, the TGI launcher,
`llama-server`. `max_num_tokens` is paired with the batch: a step must hold one token per running sequence.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from shlex import quote

from proxy.planning.capacity import CapacityPlan
from proxy.planning.engines import read_engine

TOKENS_STEP = 1024
FLASH_CHOICE_BUILD = (6325, 0)  # llama.cpp: -fa takes on, off or auto from here on
PENSTOCK = "penstock"


@dataclass(frozen=True, slots=True)
class EngineFlags:
    """A ready command line, an optional file that it names, and what in the request conflicts with it."""

    engine: str
    command: str
    file_name: str = ""
    file_text: str = ""
    conflicts: tuple[str, ...] = ()


def flags_for(plan: CapacityPlan, engine: str, url: str = "http://127.0.0.1:8000") -> EngineFlags:
    """The flags of one engine, or the Penstock configuration for `penstock`."""
    if engine == PENSTOCK:
        return EngineFlags(PENSTOCK, "penstock serve --config penstock.yaml", "penstock.yaml", penstock_yaml(plan, url))
    if engine == "dynamo":
        return _dynamo(plan)
    return BUILDERS[read_engine(engine).name](plan)


def seats(plan: CapacityPlan) -> int:
    """Sequences per replica that the engine should run."""
    return max(1, plan.recommended // plan.request.dp)


def paired_tokens(plan: CapacityPlan) -> int:
    """Tokens of one step: at least one per sequence, rounded up, and never below the planned prefill budget."""
    needed = -(-seats(plan) // TOKENS_STEP) * TOKENS_STEP
    return max(plan.batched_tokens, needed)


def conflicts(plan: CapacityPlan) -> list[str]:
    found = []
    if plan.request.max_num_seqs is not None and plan.request.max_num_seqs > max(1, plan.seats.typical):
        found.append(f"max_num_seqs {plan.request.max_num_seqs} exceeds the {plan.seats.typical} requests that fit")
    asked = plan.request.max_num_batched_tokens
    if asked is not None and asked < seats(plan):
        found.append(f"max_num_batched_tokens {asked} is below one token for each of {seats(plan)} sequences")
    if not plan.fits():
        found.append(f"max_model_len {plan.context_tokens} does not fit: the engine will refuse to start")
    if plan.kv_dtype == "fp8" and plan.card.vendor == "nvidia" and plan.card.sm < 80:
        found.append(f"an fp8 KV cache on {plan.card.name} (SM {plan.card.sm / 10:g}) is not supported")
    return found


def replicated(plan: CapacityPlan) -> list[str]:
    """The conflicts of an engine whose server is one replica."""
    copies = plan.request.dp
    return conflicts(plan) + ([f"dp {copies}: start {copies} of these, one per replica"] if copies > 1 else [])


def _line(*parts: str | None) -> str:
    return " ".join(part for part in parts if part)


def _when(condition: object, text: str) -> str | None:
    return text if condition else None


def _kv_name(plan: CapacityPlan, table: dict[str, str]) -> str:
    return table.get(plan.kv_dtype, "auto")


def _vllm(plan: CapacityPlan) -> EngineFlags:
    request, e5m2 = plan.request, 0 < plan.card.sm < 89
    kv = _kv_name(plan, {"fp8": "fp8_e5m2" if e5m2 else "fp8", "nvfp4": "nvfp4"})
    found = conflicts(plan)
    if paired_tokens(plan) < plan.context_tokens and plan.engine.version and plan.engine.version < (0, 8):
        found.append("max_num_batched_tokens below max_model_len needs chunked prefill in releases before 0.8")
    command = _line(
        f"vllm serve {quote(plan.shape.name)}",
        f"--tensor-parallel-size {plan.tp}",
        _when(request.pp > 1, f"--pipeline-parallel-size {request.pp}"),
        _when(request.dp > 1, f"--data-parallel-size {request.dp}"),
        _when(request.context_parallel > 1, f"--decode-context-parallel-size {request.context_parallel}"),
        f"--gpu-memory-utilization {_fraction(plan, 'vllm'):g}",
        f"--max-model-len {plan.context_tokens}",
        f"--max-num-seqs {seats(plan)}",
        f"--max-num-batched-tokens {paired_tokens(plan)}",
        f"--kv-cache-dtype {kv}",
        _when(request.block_tokens, f"--block-size {request.block_tokens}"),
        "--enable-prefix-caching",
        _when(request.uniform_windows, "--disable-hybrid-kv-cache-manager"),
        _when(request.language_only, "--language-model-only"),
        _when(request.eager, "--enforce-eager"),
    )
    return EngineFlags("vllm", command, conflicts=tuple(found))


def _fraction(plan: CapacityPlan, engine: str) -> float:
    """The planned fraction where it means the same, else the other engine's default."""
    if plan.engine.name == engine:
        return plan.fraction
    return read_engine(engine).default_fraction(plan.tp * plan.request.pp, plan.card.usable_gib)


def _sglang(plan: CapacityPlan) -> EngineFlags:
    request = plan.request
    command = _line(
        f"python -m sglang.launch_server --model-path {quote(plan.shape.name)}",
        f"--tp {plan.tp}",
        _when(request.pp > 1, f"--pp-size {request.pp}"),
        _when(request.dp > 1, f"--dp {request.dp}"),
        f"--mem-fraction-static {_fraction(plan, 'sglang'):g}",
        f"--context-length {plan.context_tokens}",
        f"--max-running-requests {seats(plan) * request.dp}",
        f"--chunked-prefill-size {paired_tokens(plan)}",
        f"--kv-cache-dtype {_kv_name(plan, {'fp8': 'fp8_e4m3', 'fp4': 'fp4_e2m1', 'nvfp4': 'fp4_e2m1'})}",
        f"--cuda-graph-max-bs {seats(plan)}",
    )
    return EngineFlags("sglang", command, conflicts=tuple(conflicts(plan)))


def _trt_yaml(plan: CapacityPlan) -> str:
    kv = _kv_name(plan, {"fp8": "fp8", "nvfp4": "nvfp4"})
    return (
        f"max_batch_size: {seats(plan)}\n"
        f"max_num_tokens: {paired_tokens(plan)}\n"
        f"max_seq_len: {plan.context_tokens}\n"
        f"tensor_parallel_size: {plan.tp}\n"
        f"pipeline_parallel_size: {plan.request.pp}\n"
        "kv_cache_config:\n"
        f"  dtype: {kv}\n"
        f"  free_gpu_memory_fraction: {_fraction(plan, 'tensorrt-llm'):g}\n"
        "  enable_block_reuse: true\n"
        "enable_chunked_prefill: true\n"
        f"cuda_graph_config:\n  enable_padding: true\n  max_batch_size: {seats(plan)}\n"
    )


def _tensorrt(plan: CapacityPlan) -> EngineFlags:
    command = _line(
        f"trtllm-serve {quote(plan.shape.name)}",
        f"--max_batch_size {seats(plan)}",
        f"--max_num_tokens {paired_tokens(plan)}",
        f"--max_seq_len {plan.context_tokens}",
        f"--kv_cache_free_gpu_memory_fraction {_fraction(plan, 'tensorrt-llm'):g}",
        f"--tp_size {plan.tp} --pp_size {plan.request.pp}",
        "--extra_llm_api_options trtllm.yaml",
    )
    return EngineFlags("tensorrt-llm", command, "trtllm.yaml", _trt_yaml(plan), tuple(replicated(plan)))


def _dynamo(plan: CapacityPlan) -> EngineFlags:
    command = _line(
        f"python -m dynamo.trtllm --model-path {quote(plan.shape.name)}",
        f"--max-batch-size {seats(plan)}",
        f"--max-num-tokens {paired_tokens(plan)}",
        f"--max-seq-len {plan.context_tokens}",
        f"--free-gpu-memory-fraction {_fraction(plan, 'tensorrt-llm'):g}",
        f"--tensor-parallel-size {plan.tp}",
        _when(plan.request.pp > 1, f"--pipeline-parallel-size {plan.request.pp}"),
        "--extra-engine-args trtllm.yaml",
    )
    return EngineFlags("dynamo", command, "trtllm.yaml", _trt_yaml(plan), tuple(replicated(plan)))


def _tgi(plan: CapacityPlan) -> EngineFlags:
    found = replicated(plan)
    if plan.request.pp > 1:
        found.append("TGI has no pipeline parallelism")
    command = _line(
        f"text-generation-launcher --model-id {quote(plan.shape.name)}",
        f"--num-shard {plan.tp}",
        f"--cuda-memory-fraction {_fraction(plan, 'tgi'):g}",
        f"--max-total-tokens {plan.context_tokens}",
        f"--max-input-tokens {max(1, plan.context_tokens - 1)}",
        f"--max-batch-prefill-tokens {max(paired_tokens(plan), plan.context_tokens)}",
        f"--max-concurrent-requests {seats(plan)}",
        _when(plan.kv_dtype == "fp8", "--kv-cache-dtype fp8_e4m3fn"),
    )
    return EngineFlags("tgi", command, conflicts=tuple(found))


def _llamacpp(plan: CapacityPlan) -> EngineFlags:
    kv = _kv_name(plan, {"bf16": "bf16", "fp16": "f16", "q8_0": "q8_0", "q4_0": "q4_0", "q5_1": "q5_1"})
    found = replicated(plan)
    if kv == "auto":
        found.append(f"llama.cpp has no {plan.kv_dtype} cache; q8_0 is shown")
        kv = "q8_0"
    slots = max(1, plan.seats.worst_case // plan.request.dp)
    command = _line(
        f"llama-server -m {quote(f'{plan.shape.name}.gguf')}",
        f"-c {slots * plan.context_tokens}",
        f"-np {slots}",
        f"-ctk {kv} -ctv {kv}",
        "-fa" if plan.engine.name == "llama.cpp" and plan.engine.before(FLASH_CHOICE_BUILD) else "-fa on",
        "--n-gpu-layers 999",
    )
    return EngineFlags("llama.cpp", command, conflicts=tuple(found))


def penstock_yaml(plan: CapacityPlan, url: str) -> str:
    """The upstream of a Penstock configuration whose ceiling is this plan's."""
    return (
        "upstreams:\n"
        f"  - name: {plan.engine.name.replace('.', '').replace('tensorrt-llm', 'trtllm')}-0\n"
        f"    url: {url}\n"
        "    limit: {mode: adaptive, law: model, "
        f"initial: {max(1, min(8, plan.recommended))}, min: 1, max: {max(1, plan.recommended)}}}\n"
        f"    memory: {{source: tokens, tokens: {max(1, plan.kv_tokens)}}}\n"
    )


BUILDERS: dict[str, Callable[[CapacityPlan], EngineFlags]] = {
    "vllm": _vllm,
    "sglang": _sglang,
    "tensorrt-llm": _tensorrt,
    "tgi": _tgi,
    "llama.cpp": _llamacpp,
}
ALL_TARGETS = (*BUILDERS, "dynamo", PENSTOCK)
