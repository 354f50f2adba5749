"""Files of a plan: where models come from, what their headers tell, and hostile ones."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.adapters.files import (
    CONFIG_BYTES_MAX,
    PLAN_KEYS,
    load_accelerators,
    load_model,
    load_plan,
    load_reference,
    parse_json,
    parse_yaml,
    safetensors_bytes,
    weight_bytes,
)
from proxy.planning.fields import PlanError
from tests.planning.support import PLAIN, planned

CONFIG = json.dumps(PLAIN)


def safetensors(path: Path, **tensors: Any) -> Path:
    header = json.dumps({"__metadata__": {"format": "pt"}, **tensors}).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header + b"\0" * 16)
    return path


def tensor(dtype: str, *shape: int) -> dict[str, Any]:
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [0, 0]}


def test_a_model_is_a_file_a_folder_standard_input_or_a_bundled_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "Tiny"
    folder.mkdir()
    (folder / "config.json").write_text(CONFIG)
    (folder / "hf_quant_config.json").write_text('{"quantization": {"quant_algo": "FP8"}}')
    safetensors(folder / "model.safetensors", a=tensor("BF16", 3, 5))
    found = load_model(str(folder))
    assert (found.name, found.config, found.weights_bytes) == ("Tiny", PLAIN, 30)
    assert found.sidecar == {"quantization": {"quant_algo": "FP8"}}
    assert load_model(str(folder / "config.json")).name == "Tiny"
    named = tmp_path / "other.json"
    named.write_text(json.dumps(PLAIN | {"_name_or_path": "org/name"}))
    assert load_model(str(named)).name == "org/name"
    named.write_text(CONFIG)
    assert load_model(str(named)).name == "other"
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(CONFIG.encode())))
    assert load_model("-").config == PLAIN
    for name in ("llama-3.1-8b", "Llama-3.1-8B", "meta-llama/Meta-Llama-3.1-8B"):
        assert load_model(name).name == "meta-llama/Meta-Llama-3.1-8B"


@pytest.mark.parametrize(
    ("spec", "line"),
    [
        ("a" * 5000, r"the path cannot be read \(File name too long\)"),
        ("no-such-model", "neither a file, a folder nor a bundled name; bundled: deepseek-r1"),
        ("{}/absent.json", "absent.json: no such file"),
        ("{}", "config.json: no such file"),
        ("{}/broken.json", r"broken.json: not valid JSON \(line 2\)"),
        ("{}/bytes.json", "bytes.json: not valid JSON"),
        ("{}/list.json", "list.json: must hold a JSON object"),
        ("{}/deep.json", "deep.json: nested too deeply"),
        ("{}/large.json", "large.json: larger than 4 MiB"),
        ("{}/digits.json", "digits.json: not valid JSON"),
    ],
)
def test_hostile_models_get_one_line(tmp_path: Path, spec: str, line: str) -> None:
    (tmp_path / "broken.json").write_text('{"a": 1,\n!}')
    (tmp_path / "bytes.json").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "list.json").write_text("[1]")
    (tmp_path / "deep.json").write_text('{"a":' + "[" * 200_000 + "]" * 200_000 + "}")
    (tmp_path / "digits.json").write_text('{"num_hidden_layers": ' + "9" * 5000 + "}")
    with (tmp_path / "large.json").open("wb") as stream:
        stream.truncate(200 * 2**20)
    with pytest.raises(PlanError, match=line) as caught:
        load_model(spec.format(tmp_path))
    assert "\n" not in str(caught.value)


def test_standard_input_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(b" " * (CONFIG_BYTES_MAX + 1))))
    with pytest.raises(PlanError, match="standard input: larger than 4 MiB"):
        load_model("-")


def test_unreadable_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "config.json"
    path.write_text("{}")

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    for call in (lambda: load_model(str(path)), lambda: safetensors_bytes(path)):
        with pytest.raises(PlanError, match=r"cannot be read \(Permission denied\)"):
            call()


def test_weight_bytes_come_from_headers_or_the_index(tmp_path: Path) -> None:
    assert weight_bytes(tmp_path) is None
    index = tmp_path / "model.safetensors.index.json"
    index.write_text('{"metadata": {"total_size": 1234}}')
    assert weight_bytes(tmp_path) == 1234
    index.write_text('{"metadata": 3}')
    assert weight_bytes(tmp_path) is None
    safetensors(tmp_path / "a.safetensors", x=tensor("F8_E4M3", 10), y=tensor("F4", 10), z=tensor("F32"))
    safetensors(tmp_path / "b.safetensors", x=tensor("I64", 2, 2))
    assert weight_bytes(tmp_path) == 10 + 5 + 4 + 32


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (b"", "header of 0 bytes"),
        (b"\xff" * 8, "not a safetensors file"),
        ((2).to_bytes(8, "little") + b"[]", "must hold a JSON object"),
        ((9).to_bytes(8, "little") + b'{"a": {}}', "tensor a has an unknown dtype"),
        ((9).to_bytes(8, "little") + b'{"a": 12}', "tensor a has an unknown dtype"),
    ],
)
def test_hostile_headers(tmp_path: Path, content: bytes, line: str) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(content)
    with pytest.raises(PlanError, match=line):
        safetensors_bytes(path)


def test_a_negative_shape_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PlanError, match="shape must be a whole number"):
        safetensors_bytes(safetensors(tmp_path / "x.safetensors", a=tensor("BF16", -1)))


def test_accelerator_tables(tmp_path: Path) -> None:
    own = tmp_path / "cards.yaml"
    own.write_text("- 1")
    with pytest.raises(PlanError, match="must map names"):
        load_accelerators(own)
    own.write_text("a: [")
    with pytest.raises(PlanError, match=r"cards.yaml: not valid YAML \(line \d\)"):
        load_accelerators(own)
    own.write_text("[" * 100_000)
    with pytest.raises(PlanError, match=r"cards\.yaml: (nested too deeply|not valid YAML)"):
        load_accelerators(own)
    own.write_text("a: !!python/object/apply:os.system [x]")
    with pytest.raises(PlanError, match="not valid YAML"):
        load_accelerators(own)


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=60))
def test_any_bytes_parse_or_are_refused(data: bytes) -> None:
    for parse in (parse_json, parse_yaml):
        try:
            parse(data, "x")
        except PlanError as error:
            assert str(error).startswith("x: ")


SPEC = {"model": "llama-3.1-8b", "accelerator": "h100", "count": 2, "tp": 2, "kv_dtype": "fp8", "fraction": 0.9}


def test_a_configured_plan_gives_tokens_and_context() -> None:
    plan = load_plan(SPEC)
    assert (plan.token_bytes, plan.context_tokens, plan.tp) == (32768, 131072, 2)
    assert plan.kv_tokens == plan.kv_bytes // (32768 * 16) * 16
    full = {"tp": 2, "pp": 2, "weights_gib": 10.0, "max_num_seqs": 64, "max_model_len": 4096, "gpu_memory_gib": 79.0}
    assert load_plan({"model": "llama-3.1-8b", "accelerator": "h100", **full}).request.count == 4
    assert set(full) < set(PLAN_KEYS)


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"modle": "x"}, "plan: unknown key modle; use model, accelerator"),
        ({"model": None}, "plan: key model is missing"),
        ({"accelerator": ""}, "plan: key accelerator is missing"),
        ({"fraction": 1.5}, "plan: fraction must be a number from 0.01 to 1"),
        ({"count": 3}, "--count is 3"),
        ({"model": "llama-3.1-405b"}, "leaves no memory for a KV cache on h100-sxm; raise count"),
    ],
)
def test_wrong_plans_name_the_key(changes: dict[str, Any], line: str) -> None:
    with pytest.raises(PlanError, match=line):
        load_plan(SPEC | changes)


ENTRY = """- {model: openai/gpt-oss-120b, arch: GptOss, gpu: H200_SXM, isl: 1024, osl: 1024, concurrency: 64,
   num_gpus: 4, config_path: examples/configs/database/a.yaml, validated_trtllm_version: "1.2"}
"""


def checkout(folder: Path, recipe: str | None = "max_batch_size: 8") -> Path:
    below = folder / "examples/configs/database"
    below.mkdir(parents=True)
    (below / "lookup.yaml").write_text(ENTRY)
    if recipe is not None:
        (below / "a.yaml").write_text(recipe)
    return folder


def reference(folder: Path, seats: int, model: str = "gpt-oss-120b") -> dict[str, Any]:
    return load_reference(folder, planned(model, "h200", count=4), 1024, 1024, seats)


def test_the_nearest_recipe_and_its_disagreement(tmp_path: Path) -> None:
    folder = checkout(tmp_path)
    found = reference(folder, 64)
    assert (found["entry"], found["distance"], found["max_batch_size"]) == ("examples/configs/database/a.yaml", 0, 8)
    assert (found["validated"], found["disagreement"]) == ("1.2", "8.0x: check both before use")
    assert reference(folder, 10)["disagreement"] is None
    none = reference(folder, 10, "qwen3-32b")
    assert none["entry"] is None
    assert "no entry for Qwen/Qwen3-32B on 4 x h200 among 1" in none["reason"]


@pytest.mark.parametrize("recipe", [None, "- 1", ""])
def test_a_recipe_that_is_absent_or_odd_has_no_batch(tmp_path: Path, recipe: str | None) -> None:
    assert reference(checkout(tmp_path, recipe), 64)["max_batch_size"] is None


def test_a_recipe_outside_the_checkout_is_refused(tmp_path: Path) -> None:
    folder = checkout(tmp_path / "tree", None)
    (tmp_path / "secret.yaml").write_text("max_batch_size: 1")
    (folder / "examples/configs/database/a.yaml").symlink_to(tmp_path / "secret.yaml")
    with pytest.raises(PlanError, match="leaves the checkout"):
        reference(folder, 64)
    with pytest.raises(PlanError, match=r"no lookup\.yaml"):
        reference(tmp_path, 64)


def test_lookup_may_lie_in_the_folder_itself(tmp_path: Path) -> None:
    (tmp_path / "lookup.yaml").write_text(ENTRY)
    assert reference(tmp_path, 64)["concurrency"] == 64
