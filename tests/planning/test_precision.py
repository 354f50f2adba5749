"""Weight formats in every form that a checkpoint names them, and KV types."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import pytest

from proxy.planning.fields import Fields, PlanError
from proxy.planning.precision import kv_dtype_name, read_weight_format, weight_format_named

GROUPED = Fraction(1, 2) + (2 + Fraction(1, 2)) / 128


def group(**weights: Any) -> dict[str, Any]:
    return {"quant_method": "compressed-tensors", "config_groups": {"group_0": {"weights": weights}}}


@pytest.mark.parametrize(
    ("quantization", "name", "size", "kv_dtype"),
    [
        (None, "bf16", Fraction(2), None),
        ({"quant_method": "awq", "bits": 4, "group_size": 128}, "awq int4", GROUPED, None),
        ({"quant_method": "gptq", "bits": 8, "group_size": -1}, "gptq int8", Fraction(1), None),
        ({"quant_method": "auto-round", "bits": 2}, "auto_round int2", Fraction(1, 4), None),
        ({"quant_method": "hqq", "nbits": 4}, "hqq int4", Fraction(1, 2), None),
        ({"quant_method": "fp8", "weight_block_size": [128, 128]}, "fp8", 1 + Fraction(4, 16384), None),
        ({"quant_method": "fp8", "kv_cache_scheme": "fp8"}, "fp8", Fraction(1), "fp8"),
        ({"quant_method": "fbgemm_fp8"}, "fbgemm_fp8", Fraction(1), None),
        ({"quant_method": "mxfp4"}, "mxfp4", Fraction(17, 32), None),
        ({"quant_method": "bitsandbytes", "load_in_4bit": True}, "nf4", Fraction(9, 16), None),
        ({"load_in_8bit": True}, "int8", Fraction(1), None),
        (group(num_bits=8, type="float"), "fp8", Fraction(1), None),
        (group(num_bits=8, type="int"), "int8", Fraction(1), None),
        (group(num_bits=4, type="int", group_size=128), "int4", GROUPED, None),
        (group(num_bits=4, type="float"), "nvfp4", Fraction(9, 16), None),
        (group(num_bits=4, type="float", group_size=32), "mxfp4", Fraction(17, 32), None),
        (group(num_bits=8, type="float") | {"kv_cache_scheme": {"num_bits": 8}}, "fp8", Fraction(1), "fp8"),
        (group(num_bits=8) | {"kv_cache_scheme": {"num_bits": 8, "type": "int"}}, "int8", Fraction(1), "int8"),
        (group(num_bits=8) | {"kv_cache_scheme": {"num_bits": 4}}, "int8", Fraction(1), "nvfp4"),
        (group(num_bits=8) | {"kv_cache_scheme": {"num_bits": 5}}, "int8", Fraction(1), None),
        ({"quant_method": "modelopt", "quant_algo": "FP8", "kv_cache_quant_algo": "FP8"}, "fp8", Fraction(1), "fp8"),
        ({"quant_method": "modelopt", "quant_algo": "NVFP4"}, "nvfp4", Fraction(9, 16), None),
        ({"quant_method": "modelopt", "quant_algo": "W4A8_AWQ"}, "int4", Fraction(133, 256), None),
        ({"quant_method": "modelopt", "quant_algo": "INT8_SQ"}, "int8", Fraction(1), None),
    ],
)
def test_formats(quantization: dict[str, Any] | None, name: str, size: Fraction, kv_dtype: str | None) -> None:
    found, dtype = read_weight_format(Fields({"quantization_config": quantization, "dtype": "torch.bfloat16"}), None)
    assert (found.name, found.matrix_bytes, found.kv_dtype, found.known, dtype) == (name, size, kv_dtype, True, "bf16")


@pytest.mark.parametrize(
    "quantization",
    [
        {"quant_method": "aqlm"},
        {"quant_method": "modelopt", "quant_algo": "MIXED_PRECISION"},
        {"quant_method": "compressed-tensors"},
        {"quant_method": "compressed-tensors", "config_groups": {"g": {}}},
    ],
)
def test_methods_without_a_width_are_not_known(quantization: dict[str, Any]) -> None:
    assert not read_weight_format(Fields({"quantization_config": quantization}), None)[0].known


def test_the_widest_of_several_groups_counts_and_the_sidecar_overrides() -> None:
    mixed = group(num_bits=4, type="float")
    mixed["config_groups"]["group_1"] = {"weights": {"num_bits": 8, "type": "float"}}
    model = Fields({"quantization_config": mixed})
    assert read_weight_format(model, None)[0].name == "fp8"
    sidecar = Fields({"quantization": {"quant_algo": "NVFP4", "kv_cache_quant_algo": "NVFP4"}})
    found = read_weight_format(model, sidecar)[0]
    assert (found.name, found.kv_dtype) == ("nvfp4", "nvfp4")


def test_names() -> None:
    assert [kv_dtype_name(name) for name in ("FP8_E5M2", "half", "bf16")] == ["fp8", "fp16", "bf16"]
    assert weight_format_named("mxfp4").experts_only
    assert weight_format_named("bfloat16").name == "bf16"
    for call, flag in ((kv_dtype_name, "--kv-dtype"), (weight_format_named, "--weight-dtype")):
        with pytest.raises(PlanError, match=flag):
            call("fp7")
