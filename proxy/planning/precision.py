"""Bytes of one element: KV cache types and the weight formats that a checkpoint names.

KV: bf16 2, fp8 and int8 1, 4-bit types 1/2 plus scales (nvfp4: one fp8 scale per 16 elements, 0.5625; ggml q8_0 and
q4_0: one fp16 scale per 32). Weights: group quantization of b bits with group g costs b/8 + (scale + zero point)/g.
Sources: vLLM kv_cache_interface.py, SGLang model_runner_kv_cache_mixin.py, ggml-common.h, and each method's public
`quantization_config` layout (AWQ, GPTQ, compressed-tensors, modelopt, mxfp4, bitsandbytes).
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from proxy.planning.fields import Fields, PlanError

HALF, QUARTER = Fraction(1, 2), Fraction(1, 4)
KV_BYTES: dict[str, Fraction] = {
    "fp32": Fraction(4),
    "bf16": Fraction(2),
    "fp16": Fraction(2),
    "fp8": Fraction(1),
    "int8": Fraction(1),
    "nvfp4": Fraction(9, 16),
    "fp4": Fraction(9, 16),
    "q8_0": Fraction(17, 16),
    "q5_1": Fraction(3, 4),
    "q4_0": Fraction(9, 16),
}
DTYPE_NAMES: dict[str, str] = {
    "float32": "fp32", "float": "fp32", "bfloat16": "bf16", "float16": "fp16", "half": "fp16", "f16": "fp16",
    "fp8_e4m3": "fp8", "fp8_e5m2": "fp8", "fp8_ds_mla": "fp8", "float8_e4m3fn": "fp8", "fp4_e2m1": "fp4",
}  # fmt: skip
# Bytes per matrix element; the scales of group formats are in. `None` in a plan means "use the bytes on disk".
WEIGHT_BYTES: dict[str, Fraction] = {
    "fp32": Fraction(4),
    "bf16": Fraction(2),
    "fp16": Fraction(2),
    "fp8": Fraction(1),
    "int8": Fraction(1),
    "int4": HALF + Fraction(5, 256),
    "awq": HALF + Fraction(5, 256),
    "gptq": HALF + Fraction(5, 256),
    "nvfp4": HALF + Fraction(1, 16),
    "mxfp4": HALF + Fraction(1, 32),
    "nf4": HALF + Fraction(1, 16),
}
EIGHT_BIT_METHODS = frozenset({"fbgemm_fp8", "eetq", "smoothquant"})


@dataclass(frozen=True, slots=True)
class WeightFormat:
    """How the matrices of a checkpoint are stored.

    `experts_only`: only the expert matrices are quantized (mxfp4). `kv_dtype`: the KV type that the checkpoint itself
    asks for, or None. `known`: False when the method names no bit width that is read here.
    """

    name: str
    matrix_bytes: Fraction
    experts_only: bool = False
    kv_dtype: str | None = None
    known: bool = True


def kv_dtype_name(name: str) -> str:
    """The canonical name of a KV cache type. Raises PlanError for an unknown one."""
    canonical = DTYPE_NAMES.get(name.lower(), name.lower())
    if canonical not in KV_BYTES:
        raise PlanError(f"--kv-dtype {name!r} is unknown; use auto or one of: {', '.join(KV_BYTES)}")
    return canonical


def weight_format_named(name: str) -> WeightFormat:
    """The format of `--weight-dtype NAME`."""
    canonical = DTYPE_NAMES.get(name.lower(), name.lower())
    if canonical not in WEIGHT_BYTES:
        raise PlanError(f"--weight-dtype {name!r} is unknown; use auto or one of: {', '.join(WEIGHT_BYTES)}")
    return WeightFormat(canonical, WEIGHT_BYTES[canonical], experts_only=canonical == "mxfp4")


def read_weight_format(model: Fields, sidecar: Fields | None) -> tuple[WeightFormat, str]:
    """(format, model dtype) from config.json, its text part and the optional hf_quant_config.json.

    The sidecar overrides the config, as the engines do.
    """
    stored = model.text("dtype", "torch_dtype", default="bfloat16").removeprefix("torch.")
    dtype = DTYPE_NAMES.get(stored, stored)
    if dtype not in WEIGHT_BYTES:
        raise PlanError(f"{model.source}: dtype {stored!r} is unknown; give --weight-dtype")
    quantization = sidecar.child("quantization") if sidecar else None
    if quantization is not None:
        return _modelopt(quantization), dtype
    quantization = model.child("quantization_config", "compression_config")
    if quantization is None:
        return WeightFormat(dtype, WEIGHT_BYTES[dtype]), dtype
    return _by_method(quantization, dtype), dtype


def _by_method(config: Fields, dtype: str) -> WeightFormat:
    method = config.text("quant_method", "quant_library").lower().replace("-", "_")
    if not method and config.has("load_in_4bit", "load_in_8bit"):
        method = "bitsandbytes"
    if method in ("modelopt", "modelopt_fp4"):
        return _modelopt(config)
    if method == "compressed_tensors":
        return _compressed_tensors(config)
    if method in ("mxfp4", "gpt_oss_mxfp4"):
        return WeightFormat("mxfp4", WEIGHT_BYTES["mxfp4"], experts_only=True)
    if method == "bitsandbytes":
        four = config.flag("load_in_4bit", "_load_in_4bit")
        return WeightFormat("nf4" if four else "int8", WEIGHT_BYTES["nf4" if four else "int8"])
    if method == "fp8":
        blocked = config.items("weight_block_size")
        return WeightFormat(
            "fp8", Fraction(1) + (Fraction(4, 128 * 128) if blocked else 0), kv_dtype=_kv_scheme(config)
        )
    if method in EIGHT_BIT_METHODS:
        return WeightFormat(method, Fraction(1))
    return _by_bits(config, method or "unnamed method", dtype)


def _by_bits(config: Fields, method: str, dtype: str) -> WeightFormat:
    """awq, gptq, auto-round, hqq, aqlm, quark, torchao: take the bit width when one is given."""
    bits = config.optional_integer("bits", "w_bit", "nbits", "num_bits", "nbits_per_codebook", low=1, high=32)
    if bits is None:
        return WeightFormat(method, WEIGHT_BYTES[dtype], known=False)
    return WeightFormat(f"{method} int{bits}", _grouped(bits, config), kv_dtype=_kv_scheme(config))


def _grouped(bits: int, config: Fields) -> Fraction:
    """b/8 per element, plus an fp16 scale and a packed zero point per group (group -1: per channel, no share)."""
    group = config.optional_integer("group_size", "q_group_size", low=-1, high=65536)
    size = Fraction(bits, 8)
    return size if group is None or group <= 0 else size + (2 + size) / group


def _modelopt(config: Fields) -> WeightFormat:
    name = config.text("quant_algo", "quant_method").upper()
    kv_name = config.text("kv_cache_quant_algo").upper()
    kv_dtype = {"FP8": "fp8", "NVFP4": "nvfp4", "INT8": "int8"}.get(kv_name) or _kv_scheme(config)
    if name.startswith(("NVFP4", "W4A16_NVFP4")):
        return WeightFormat("nvfp4", WEIGHT_BYTES["nvfp4"], kv_dtype=kv_dtype)
    if name.startswith("W4A"):
        return WeightFormat("int4", WEIGHT_BYTES["int4"], kv_dtype=kv_dtype)
    if name.startswith(("FP8", "W8A8", "INT8", "W8A16")):
        return WeightFormat("fp8" if "FP8" in name else "int8", Fraction(1), kv_dtype=kv_dtype)
    return WeightFormat(name.lower() or "modelopt", Fraction(1), kv_dtype=kv_dtype, known=False)


def _compressed_tensors(config: Fields) -> WeightFormat:
    """The widest of `config_groups.*.weights`: several groups mean mixed precision, and wide is the safe side."""
    groups = config.child("config_groups")
    kv_dtype = _kv_scheme(config)
    schemes = [_scheme(groups, name) for name in groups.values] if groups else []
    sized = [scheme for scheme in schemes if scheme is not None]
    if not sized:
        return WeightFormat("compressed-tensors", Fraction(2), kv_dtype=kv_dtype, known=False)
    name, size = max(sized, key=lambda pair: pair[1])
    return WeightFormat(name, size, kv_dtype=kv_dtype)


def _scheme(groups: Fields, name: str) -> tuple[str, Fraction] | None:
    group = groups.child(name)
    weights = group.child("weights") if group else None
    if weights is None:
        return None
    bits = weights.integer("num_bits", low=1, high=32)
    kind = weights.text("type", default="int")
    if bits == 4 and kind == "float":
        group_size = weights.integer("group_size", low=1, high=65536, default=16)
        return ("mxfp4" if group_size == 32 else "nvfp4"), HALF + Fraction(1, group_size)
    if bits == 8:
        return ("fp8" if kind == "float" else "int8"), Fraction(1)
    return f"{kind}{bits}", _grouped(bits, weights)


def _kv_scheme(config: Fields) -> str | None:
    """The KV type a checkpoint carries scales for (`kv_cache_scheme`, `kv_cache_quant_algo`)."""
    scheme: Any = config.find("kv_cache_scheme")[1]
    if not isinstance(scheme, dict):
        return "fp8" if isinstance(scheme, str) and "fp8" in scheme.lower() else None
    bits = Fields(scheme, f"{config.source}: kv_cache_scheme").integer("num_bits", low=1, high=32, default=8)
    if bits == 8:
        return "fp8" if scheme.get("type", "float") == "float" else "int8"
    return "nvfp4" if bits == 4 else None
