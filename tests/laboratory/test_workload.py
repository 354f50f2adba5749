"""Traces: rates, lengths and what arrivals have in common."""

from __future__ import annotations

import random
import statistics

import pytest

from proxy.laboratory.workload import Arrival, Stream, arrivals, lognormal
from proxy.types import Work


def test_a_trace_has_the_rates_and_lengths_that_were_asked_for() -> None:
    streams = [Stream(20.0, 10.0, 110.0, 1, "a", 512, 256, 0.5), Stream(5.0, 0.0, 100.0, tenant="b", output_cap=100)]
    trace = arrivals(streams, random.Random(1))
    assert [one.at_s for one in trace] == sorted(one.at_s for one in trace)
    first = [one for one in trace if one.tenant == "a"]
    second = [one for one in trace if one.tenant == "b"]
    assert len(first) == pytest.approx(2000, rel=0.1) and len(second) == pytest.approx(500, rel=0.15)
    assert min(one.at_s for one in first) >= 10 and max(one.at_s for one in first) < 110
    assert statistics.fmean(one.prompt_tokens for one in first) == pytest.approx(512, rel=0.05)
    assert statistics.fmean(one.output_tokens for one in first) == pytest.approx(256, rel=0.05)
    assert {one.class_index for one in first} == {1} and {one.class_index for one in second} == {0}
    assert max(one.output_tokens for one in second) == 100 and {one.output_cap for one in second} == {100}


def test_embeddings_put_out_nothing_and_arrivals_share_what_they_are_like() -> None:
    like = Arrival(0.0, 1, 1, work=Work.EMBED, streaming=False, proxy=2)
    trace = arrivals([Stream(5.0, 0, 10, like=like)], random.Random(1))
    assert {(one.output_tokens, one.work, one.streaming, one.proxy) for one in trace} == {(0, Work.EMBED, False, 2)}


@pytest.mark.parametrize(("mean", "variation"), [(300.0, 1.0), (40.0, 0.2), (1.0, 0.01)])
def test_lognormal_has_mean_and_variation(mean: float, variation: float) -> None:
    rng = random.Random(3)
    drawn = [lognormal(rng, mean, variation) for _ in range(20_000)]
    assert min(drawn) >= 1
    assert statistics.fmean(drawn) == pytest.approx(mean, rel=0.05)
    assert statistics.pstdev(drawn) / statistics.fmean(drawn) == pytest.approx(variation, abs=0.1)
