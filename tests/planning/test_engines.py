"""What an engine's version means."""

from __future__ import annotations

import pytest

from proxy.adapters.files import load_accelerator
from proxy.planning.engines import read_engine
from proxy.planning.fields import PlanError


@pytest.mark.parametrize(
    ("name", "version", "tp", "fraction"),
    [
        ("vllm", "", 1, 0.90),
        ("vllm", "0.20.1", 1, 0.90),
        ("VLLM", "0.21", 1, 0.92),
        ("vllm", "v0.26.1rc1", 1, 0.92),
        ("sglang", "", 1, 0.88),
        ("sglang", "", 3, 0.87),
        ("sglang", "", 16, 0.79),
        ("sglang", "0.5.3", 1, 0.836),
        ("sglang", "0.5.3", 8, 0.819),
        ("dynamo", "", 1, 0.90),
        ("tgi", "3", 1, 1.0),
        ("llamacpp", "", 1, 1.0),
    ],
)
def test_fractions(name: str, version: str, tp: int, fraction: float) -> None:
    assert read_engine(name, version).default_fraction(tp, 80) == fraction


def test_an_unknown_version_is_neither_before_nor_since() -> None:
    engine = read_engine("vllm")
    assert not engine.before((0, 1))
    assert not engine.since((0, 1))


@pytest.mark.parametrize(
    ("version", "card", "seqs", "batched"),
    [
        ("0.7.0", "h100", 256, 30000),
        ("0.7.0", "l4", 256, 30000),
        ("0.11", "h100", 1024, 8192),
        ("", "a100", 256, 2048),
        ("", "l4", 256, 2048),
    ],
)
def test_defaults_of_vllm(version: str, card: str, seqs: int, batched: int) -> None:
    engine, entry = read_engine("vllm", version), load_accelerator(card)
    assert engine.default_seqs(entry, entry.usable_gib) == seqs
    assert engine.default_batched(entry, entry.usable_gib, 30000) == batched


def test_who_keeps_windows_whole() -> None:
    whole = [("vllm", "0.8"), ("trtllm", "")]
    assert all(read_engine(*engine).keeps_windows_whole for engine in whole)
    assert not any(read_engine(*engine).keeps_windows_whole for engine in [("vllm", ""), ("vllm", "0.9"), ("tgi", "")])


def test_defaults_of_others_and_refusals() -> None:
    entry = load_accelerator("l4")
    assert read_engine("tgi").default_batched(entry, 80, 1) == 4096
    assert [read_engine("sglang").default_batched(entry, size, 1) for size in (16, 24, 48, 80, 192)] == [
        2048, 2048, 4096, 8192, 16384,
    ]  # fmt: skip
    assert [read_engine("sglang", "0.5").default_fraction(1, size) for size in (16, 24, 192)] == [0.772, 0.847, 0.867]
    assert read_engine("llama.cpp", "b8247").version == (8247, 0)
    with pytest.raises(PlanError, match="--engine 'x' is unknown"):
        read_engine("x")
    with pytest.raises(PlanError, match="--engine-version 'new'"):
        read_engine("vllm", "new")
