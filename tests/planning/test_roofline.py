"""The roofline against closed forms."""

from __future__ import annotations

import pytest

from proxy.adapters.files import load_accelerator
from proxy.planning.roofline import BATCH_MAX, Roofline
from tests.planning.support import bundled, planned


def line(model: str = "llama-3.1-8b", card: str = "h100", ranks: int = 1, kv: int = 131072) -> Roofline:
    return Roofline(bundled(model), load_accelerator(card), ranks, kv)


def test_a_decode_step_is_bound_by_the_bytes_it_reads() -> None:
    roofline = line()
    counted = bundled("llama-3.1-8b").counted
    point = roofline.decode(8, 1000)
    moved = 2 * counted.active + 8 * 1000 * 131072
    assert point.bytes == moved
    assert point.step_s == pytest.approx(moved / 3350e9)
    assert point.expected_s == pytest.approx(moved / 3350e9 / 0.8)
    assert point.flop == 8 * (2 * counted.active + 4 * 32 * 128 * 32 * 1000)
    assert point.tokens_per_s == pytest.approx(8 / point.step_s)
    assert point.bound == "memory"
    half = line(ranks=2, kv=65536).decode(8, 1000)
    assert half.step_s == pytest.approx(point.step_s / 2)


def test_intensity_of_weights_alone_is_the_batch_in_16_bit() -> None:
    assert [round(line().decode(batch, 0).intensity, 6) for batch in (1, 8, 64)] == [1, 8, 64]
    assert line(kv=0).decode(400, 0).bound == "compute"


def test_prefill_is_bound_by_compute() -> None:
    point = line().prefill(4096)
    assert point.bound == "compute"
    assert point.expected_s == pytest.approx(point.step_s / 0.45)
    assert point.intensity > line().ridge


def test_compute_runs_in_the_precision_that_card_and_weights_share() -> None:
    assert line("qwen3-32b-fp8").compute_dtype == "fp8"
    assert line("qwen3-32b-fp8", "a100").compute_dtype == "fp16"
    assert line("llama-2-7b-awq").compute_dtype == "fp16"
    nvfp4 = planned("qwen3-32b", "b200", weight_dtype="nvfp4").roofline
    assert (nvfp4.compute_dtype, nvfp4.flops) == ("nvfp4", 9000e12)


def test_the_largest_batch_is_the_last_within_the_target() -> None:
    roofline = line()
    for itl_s in (0.006, 0.02, 0.05):
        batch = roofline.largest_batch(itl_s, 2048)
        assert roofline.decode(batch, 2048).expected_s <= itl_s < roofline.decode(batch + 1, 2048).expected_s
    assert roofline.largest_batch(0.001, 2048) == 0
    assert roofline.largest_batch(1e6, 1) == BATCH_MAX


def test_the_longest_prompt_is_the_last_within_the_target() -> None:
    roofline = line()
    longest = roofline.longest_prompt(0.1, 100_000)
    assert roofline.prefill(longest).expected_s <= 0.1 < roofline.prefill(longest + 1).expected_s
    assert roofline.longest_prompt(100, 4096) == 4096


def test_windows_bound_the_attention_work() -> None:
    roofline = line("mistral-7b-v0.1")
    assert roofline.decode(1, 10**5).flop == roofline.decode(1, 4096).flop
