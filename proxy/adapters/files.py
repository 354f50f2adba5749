"""Files that a plan is made from, read with a bound on size and depth, and parsed: no more.

A model is a config.json, a folder that holds one, `-` for standard input, or a bundled name. Weight bytes come from
`model.safetensors.index.json` (`metadata.total_size`), else from the headers of the folder's safetensors files: eight
bytes of little-endian length, then JSON (huggingface/safetensors, README, "Format").
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from proxy.adapters.data import data_folder
from proxy.planning.accelerators import Accelerator, find_accelerator, normalised
from proxy.planning.capacity import CapacityPlan, PlanRequest, plan_capacity
from proxy.planning.fields import Fields, PlanError, shown
from proxy.planning.reference_configs import disagreement, nearest, read_entries
from proxy.planning.shapes import read_shape

CONFIG_BYTES_MAX = 4 * 2**20  # the largest public config.json is below 1 MiB
INDEX_BYTES_MAX = 64 * 2**20  # an index of a thousand shards is about 20 MiB
HEADER_BYTES_MAX = 100 * 10**6  # safetensors' own limit
SHARDS_MAX = 2000
YAML_DEPTH_MAX = 100
YAML_BYTES_MAX = 8 * 2**20
LOG_BYTES_MAX = 64 * 2**20
PLAN_KEYS = (
    "model", "accelerator", "count", "tp", "pp", "dp", "kv_dtype", "weight_dtype", "fraction", "engine",
    "engine_version", "max_model_len", "max_num_seqs", "max_num_batched_tokens", "gpu_memory_gib", "weights_gib",
)  # fmt: skip
TENSOR_BITS = {
    "BOOL": 8, "U8": 8, "I8": 8, "F8_E5M2": 8, "F8_E4M3": 8, "F8_E8M0": 8, "I16": 16, "U16": 16, "F16": 16, "BF16": 16,
    "I32": 32, "U32": 32, "F32": 32, "F64": 64, "I64": 64, "U64": 64, "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class ModelFiles:
    """What was found about a model: config, optional quantization sidecar, and the bytes of all its weights."""

    name: str
    config: Mapping[str, Any]
    sidecar: Mapping[str, Any] | None = None
    weights_bytes: int | None = None


def read_bounded(path: Path, bytes_max: int) -> bytes:
    """The whole file. Raises PlanError when it is not a readable regular file of at most that size."""
    try:
        if not path.is_file():
            raise PlanError(f"{path}: no such file")
        with path.open("rb") as stream:
            data = stream.read(bytes_max + 1)
    except OSError as error:
        raise PlanError(f"{path}: cannot be read ({error.strerror or 'unreadable'})") from None
    return _within(data, bytes_max, str(path))


def _within(data: bytes, bytes_max: int, source: str) -> bytes:
    if len(data) > bytes_max:
        raise PlanError(f"{source}: larger than {bytes_max // 2**20} MiB; is this a config.json?")
    return data


def parse_json(data: bytes, source: str) -> dict[str, Any]:
    """A JSON object. Raises PlanError for anything else, nesting beyond the parser's depth included."""
    try:
        value = json.loads(data)
    except RecursionError:
        raise PlanError(f"{source}: nested too deeply") from None
    except ValueError as error:
        where = f" (line {error.lineno})" if isinstance(error, json.JSONDecodeError) else ""
        raise PlanError(f"{source}: not valid JSON{where}") from None
    if not isinstance(value, dict):
        raise PlanError(f"{source}: must hold a JSON object")
    return value


def parse_yaml(data: bytes, source: str) -> Any:
    """A YAML document, safe types only. Raises PlanError when it does not parse."""
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        _bound_depth(data, loader, source)
        return yaml.load(data, Loader=loader)  # noqa: S506 - both loaders are the safe ones
    except RecursionError:
        raise PlanError(f"{source}: nested too deeply") from None
    except (yaml.YAMLError, ValueError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f" (line {mark.line + 1})" if mark is not None else ""
        raise PlanError(f"{source}: not valid YAML{where}") from None


def _bound_depth(data: bytes, loader: Any, source: str) -> None:
    """libyaml builds nested values by recursion in C, which ends the process where Python would raise."""
    depth = 0
    for event in yaml.parse(data, Loader=loader):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if depth > YAML_DEPTH_MAX:
            raise PlanError(f"{source}: nested too deeply")


def load_accelerators(path: Path | None = None) -> dict[str, Any]:
    """The table of accelerators: the bundled one, or a file of the same layout."""
    chosen = path or data_folder("config") / "accelerators.yaml"
    table = parse_yaml(read_bounded(chosen, YAML_BYTES_MAX), chosen.name)
    if not isinstance(table, dict):
        raise PlanError(f"{chosen}: must map names to accelerators")
    return table


def load_accelerator(name: str, path: Path | None = None) -> Accelerator:
    return find_accelerator(load_accelerators(path), name)


def bundled_models() -> list[str]:
    return sorted(path.stem for path in (data_folder("config") / "models").glob("*.json"))


def load_model(spec: str) -> ModelFiles:
    """The model that `spec` names: `-`, a file, a folder, or a bundled name (Hugging Face id or short name)."""
    if spec == "-":
        data = _within(sys.stdin.buffer.read(CONFIG_BYTES_MAX + 1), CONFIG_BYTES_MAX, "standard input")
        return ModelFiles("standard input", parse_json(data, "standard input"))
    path = Path(spec)
    try:
        is_folder, is_file = path.is_dir(), path.is_file()
    except OSError as error:
        raise PlanError(f"--model: the path cannot be read ({error.strerror})") from None
    if is_folder:
        return _from_folder(path)
    if is_file or path.suffix == ".json":
        config = parse_json(read_bounded(path, CONFIG_BYTES_MAX), path.name)
        return ModelFiles(_named(config, path.parent.name if path.name == "config.json" else path.stem), config)
    return _bundled(spec)


def _named(config: Mapping[str, Any], fallback: str) -> str:
    name = config.get("_name_or_path")
    return name if isinstance(name, str) and name else fallback


def _from_folder(folder: Path) -> ModelFiles:
    config = parse_json(read_bounded(folder / "config.json", CONFIG_BYTES_MAX), "config.json")
    sidecar_path = folder / "hf_quant_config.json"
    sidecar = None
    if sidecar_path.is_file():
        sidecar = parse_json(read_bounded(sidecar_path, CONFIG_BYTES_MAX), sidecar_path.name)
    return ModelFiles(folder.resolve().name, config, sidecar, weight_bytes(folder))


def _bundled(spec: str) -> ModelFiles:
    wanted = normalised(spec.rsplit("/", 1)[-1])
    folder = data_folder("config") / "models"
    for stem in bundled_models():
        if normalised(stem) == wanted:
            config = parse_json(read_bounded(folder / f"{stem}.json", CONFIG_BYTES_MAX), f"{stem}.json")
            return ModelFiles(_named(config, stem), config)
    for stem in bundled_models():
        config = parse_json(read_bounded(folder / f"{stem}.json", CONFIG_BYTES_MAX), f"{stem}.json")
        if normalised(_named(config, "").rsplit("/", 1)[-1]) == wanted:
            return ModelFiles(_named(config, stem), config)
    raise PlanError(
        f"--model {shown(spec)} is neither a file, a folder nor a bundled name; bundled: {', '.join(bundled_models())}"
    )


def weight_bytes(folder: Path) -> int | None:
    """Bytes of all tensors: the index's total, checked against the files when they are there, else their headers."""
    shards = sorted(folder.glob("*.safetensors"))[:SHARDS_MAX]
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        metadata = parse_json(read_bounded(index, INDEX_BYTES_MAX), index.name).get("metadata")
        fields = Fields(metadata if isinstance(metadata, dict) else {}, index.name)
        total = fields.optional_integer("total_size", high=2**60)
        if total is not None and not shards:
            return total
    return sum(safetensors_bytes(shard) for shard in shards) if shards else None


def safetensors_bytes(path: Path) -> int:
    """Sum of the tensors of one file, from its header alone."""
    try:
        with path.open("rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            if not 0 < length <= HEADER_BYTES_MAX:
                raise PlanError(f"{path.name}: not a safetensors file (header of {length} bytes)")
            header = parse_json(stream.read(length), path.name)
    except OSError as error:
        raise PlanError(f"{path}: cannot be read ({error.strerror or 'unreadable'})") from None
    return sum(_tensor_bytes(path.name, name, value) for name, value in header.items() if name != "__metadata__")


def _tensor_bytes(source: str, name: str, value: object) -> int:
    entry = Fields(value if isinstance(value, dict) else {}, f"{source}: {name[:40]}")
    bits = TENSOR_BITS.get(entry.text("dtype"))
    if bits is None:
        raise PlanError(f"{source}: tensor {name[:40]} has an unknown dtype")
    elements = 1
    for size in entry.items("shape") or ():
        elements *= entry.checked_integer("shape", size, 0)
    return elements * bits // 8


def load_plan(spec: Mapping[str, Any]) -> CapacityPlan:
    """The plan of a configuration's `memory: {source: plan, plan: {...}}`.

    `spec`: model and accelerator, and optionally the other `PLAN_KEYS`. Raises PlanError naming the key at fault.
    """
    unknown = sorted(set(spec) - set(PLAN_KEYS))
    if unknown:
        raise PlanError(f"plan: unknown key {unknown[0]}; use {', '.join(PLAN_KEYS)}")
    fields = Fields(spec, "plan")
    for key in ("model", "accelerator"):
        if not fields.text(key):
            raise PlanError(f"plan: key {key} is missing; add it")
    files = load_model(fields.text("model"))
    card = load_accelerator(fields.text("accelerator"))
    shape = read_shape(files.config, files.sidecar, files.name)
    plan = plan_capacity(shape, card, plan_request(fields), files.weights_bytes)
    if plan.kv_tokens < 1:
        raise PlanError(
            f"plan: {shape.name} leaves no memory for a KV cache on {card.name}; raise count and tp, or fraction"
        )
    return plan


def plan_request(fields: Fields) -> PlanRequest:
    """PlanRequest from checked fields; a key that is absent keeps its default."""

    def optional_number(name: str, low: float, high: float) -> float | None:
        return fields.number(name, low=low, high=high, default=low) if fields.has(name) else None

    tp = fields.optional_integer("tp", high=4096)
    pp = fields.integer("pp", high=1024, default=1)
    dp = fields.integer("dp", high=4096, default=1)
    return PlanRequest(
        engine=fields.text("engine", default="vllm"),
        engine_version=fields.text("engine_version"),
        count=fields.integer("count", high=16384, default=(tp or 1) * pp * dp),
        tp=tp,
        pp=pp,
        dp=dp,
        kv_dtype=fields.text("kv_dtype", default="auto"),
        weight_dtype=fields.text("weight_dtype", default="auto"),
        fraction=optional_number("fraction", 0.01, 1.0),
        max_model_len=fields.optional_integer("max_model_len"),
        max_num_seqs=fields.optional_integer("max_num_seqs", high=2**20),
        max_num_batched_tokens=fields.optional_integer("max_num_batched_tokens"),
        gpu_memory_gib=optional_number("gpu_memory_gib", 0.5, 4096),
        weights_gib=optional_number("weights_gib", 0.0, 4096),
    )


def load_reference(folder: Path, plan: CapacityPlan, prompt: int, output: int, seats: int) -> dict[str, Any]:
    """The nearest recipe of a TensorRT-LLM checkout, as JSON values: its entry, distance, batch and disagreement.

    `folder` is the checkout or a folder below it that holds lookup.yaml. Raises PlanError when there is none.
    """
    lookup, root = _lookup(folder)
    entries, warnings = read_entries(parse_yaml(read_bounded(lookup, YAML_BYTES_MAX), "lookup.yaml"))
    shape, request = plan.shape, plan.request
    match = nearest(entries, shape.name, shape.architecture, plan.card.name, request.count, prompt, output, seats)
    if match is None:
        here = f"{shape.name} on {request.count} x {plan.card.name}"
        return {"entry": None, "reason": f"no entry for {here} among {len(entries)}", "warnings": warnings}
    recipe = _recipe(root, match.entry.config_path)
    batch = recipe.optional_integer("max_batch_size", high=2**20)
    factor = disagreement(batch, seats) if batch else None
    return {
        "entry": match.entry.config_path,
        "model": match.entry.model,
        "matched_by": match.matched_by,
        "isl": match.entry.prompt_tokens,
        "osl": match.entry.output_tokens,
        "concurrency": match.entry.concurrency,
        "distance": round(match.distance, 3),
        "validated": match.entry.validated or None,
        "max_batch_size": batch,
        "plan_seats": seats,
        "disagreement": f"{factor:.1f}x: check both before use" if factor else None,
        "warnings": warnings,
    }


def _lookup(folder: Path) -> tuple[Path, Path]:
    """(lookup.yaml, root that config paths are relative to)."""
    for below in ("examples/configs/database", "database", ""):
        path = (folder / below / "lookup.yaml").resolve()
        if path.is_file():
            inside = path.parent.parts[-3:] == ("examples", "configs", "database")
            return path, path.parents[3] if inside else folder.resolve()
    raise PlanError(f"{folder}: no lookup.yaml here nor under examples/configs/database")


def _recipe(root: Path, config_path: str) -> Fields:
    """The recipe's options, when its file lies below the root; nothing when it is absent."""
    path = (root / config_path).resolve()
    if not path.is_relative_to(root):
        raise PlanError("lookup.yaml: config_path leaves the checkout")
    if not path.is_file():
        return Fields({}, config_path)
    document = parse_yaml(read_bounded(path, YAML_BYTES_MAX), path.name)
    return Fields(document if isinstance(document, dict) else {}, path.name)
