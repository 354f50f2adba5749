from __future__ import annotations

import dataclasses
import random
import statistics

import pytest

from proxy.simulator.profiles import PROFILES, T4_7B_AWQ, EngineProfile, Roofline, StepTime, profile_named


def test_the_t4_profile_repeats_its_measured_inter_token_latency() -> None:
    for sequences, measured_s in ((1, 0.02722), (8, 0.04072)):
        assert T4_7B_AWQ.step_time.seconds(sequences, 128 * sequences, 0) == pytest.approx(measured_s, rel=0.01)


@pytest.mark.parametrize("sequences", [1, 64, 512, 4096])
@pytest.mark.parametrize("prefill", [0, 2048])
def test_a_roofline_step_lies_between_the_roofs_and_their_sum(sequences: int, prefill: int) -> None:
    model = Roofline(
        parameters=8e9,
        weight_bytes=16e9,
        kv_bytes_per_token=131_072,
        devices=2,
        bandwidth_bytes_s=2e12,
        flops=300e12,
        overhead_s=0.0,
    )
    kv_tokens = 500 * sequences
    memory_s = (16e9 + kv_tokens * 131_072) / (2 * 2e12 * 0.8)
    compute_s = 2 * 8e9 * (sequences + prefill) / (2 * 300e12 * 0.45)
    step_s = model.step_time().seconds(sequences, kv_tokens, prefill)
    assert max(memory_s, compute_s) <= step_s == pytest.approx(memory_s + compute_s)


@pytest.mark.parametrize("profile", PROFILES.values(), ids=list(PROFILES))
def test_output_lengths_have_the_profile_mean(profile: EngineProfile) -> None:
    rng = random.Random(7)
    lengths = [profile.draw_output_tokens(rng) for _ in range(20_000)]
    assert statistics.fmean(lengths) == pytest.approx(profile.output_mean, rel=0.05)
    assert statistics.stdev(lengths) == pytest.approx(profile.output_mean * profile.output_cv, rel=0.15)
    assert min(lengths) >= 1


def test_profiles_are_found_by_name_and_an_unknown_one_names_the_choices() -> None:
    assert [profile_named(name).name for name in PROFILES] == list(PROFILES)
    with pytest.raises(ValueError, match=r"no engine profile 'a100'; choose one of: h100x4-llama70b-fp8, t4-7b-awq"):
        profile_named("a100")


def test_limits_of_one_request_and_of_one_step() -> None:
    profile = EngineProfile(
        "p", "m", StepTime(1.0, 0.0, 0.0, 0.0), kv_tokens=100, context_tokens=500, max_seqs=4, chunk_tokens=8
    )
    assert (profile.kv_blocks, profile.request_tokens_max) == (6, 96)
    assert dataclasses.replace(profile, context_tokens=50).request_tokens_max == 50
    with pytest.raises(ValueError, match="max_seqs 9 exceeds chunk_tokens 8"):
        dataclasses.replace(profile, max_seqs=9)
