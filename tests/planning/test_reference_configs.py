"""The nearest recipe: matching, distance, refusals."""

from __future__ import annotations

from typing import Any

import pytest

from proxy.planning.fields import PlanError
from proxy.planning.reference_configs import Match, checked_path, disagreement, family, nearest, read_entries


def entry(**changes: Any) -> dict[str, Any]:
    base = {
        "model": "openai/gpt-oss-120b", "arch": "GptOss", "gpu": "H200_SXM", "isl": 1024, "osl": 1024,
        "concurrency": 64, "config_path": "examples/a.yaml", "num_gpus": 4,
    }  # fmt: skip
    return base | changes


def found(*entries: dict[str, Any], **wanted: Any) -> Match | None:
    given: dict[str, Any] = {"model": "openai/gpt-oss-120b", "architecture": "GptOss", "gpu": "h200", "gpus": 4}
    given |= {"prompt": 1024, "output": 1024, "seats": 64} | wanted
    return nearest(read_entries(list(entries))[0], **given)


def test_matching_by_model_then_name_then_architecture() -> None:
    own, renamed, akin = entry(), entry(model="x/GPT-OSS-120B"), entry(model="x/y")
    assert [match.matched_by for match in (found(own), found(renamed, akin), found(akin)) if match] == [
        "model", "name", "architecture",
    ]  # fmt: skip
    assert found(akin, architecture="") is None
    assert found(own, gpus=8) is None
    assert found(own, gpu="b200") is None


def test_nearest_lengths_then_the_smallest_concurrency_that_reaches() -> None:
    entries = [entry(isl=8192, concurrency=64)] + [entry(concurrency=count) for count in (16, 128, 256)]
    match = found(*entries)
    assert match is not None
    assert (match.entry.concurrency, match.distance) == (128, 0)
    largest = found(*entries, seats=9999)
    assert largest is not None
    assert largest.entry.concurrency == 256
    far = found(*entries, prompt=4096)
    assert far is not None
    assert far.entry.prompt_tokens == 8192
    assert far.distance == pytest.approx(0.693, abs=0.001)


def test_unknown_keys_warn() -> None:
    entries, warnings = read_entries([entry(extra=1, validated_trtllm_version="1.2")])
    assert entries[0].validated == "1.2"
    assert warnings == ["lookup.yaml: key extra is not known and was skipped"]


@pytest.mark.parametrize(
    ("document", "line"),
    [
        ({}, "must be a list"),
        (["x"], "entry 0 must be a mapping"),
        ([entry(model=None)], "key model is missing"),
        ([entry(isl="1k")], "isl must be a whole number"),
        ([entry(config_path="/etc/passwd")], "config_path must be relative"),
        ([entry(config_path="a/../../b")], "config_path must be relative"),
        ([entry(config_path="C:/b")], "config_path must be relative"),
    ],
)
def test_refusals(document: Any, line: str) -> None:
    with pytest.raises(PlanError, match=line):
        read_entries(document)


def test_paths_families_and_disagreement() -> None:
    assert checked_path("examples/x.yaml", "here") == "examples/x.yaml"
    assert {family(name) for name in ("H100_SXM", "h100-sxm", "NVIDIA H100 80GB", "H100")} == {"h100"}
    assert family("B200_NVL") == family("b200") != family("GB200_NVL")
    assert (disagreement(100, 50), disagreement(101, 50), disagreement(50, 200)) == (None, 2.02, 4.0)
    assert disagreement(1, 0) is None
