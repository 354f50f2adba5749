"""SGLang's pools against a printed start-up, and their bounds."""

from __future__ import annotations

from fractions import Fraction

import pytest

from proxy.planning.kv_cache import CacheOptions, state_bytes
from proxy.planning.split_cache import SplitCache, build_split_cache
from tests.planning.support import bundled

OPTIONS = CacheOptions("bf16", tp=4, unified=False, batched_tokens=2048)


def test_sliding_pool_of_a_printed_start() -> None:
    cache = build_split_cache(bundled("mimo-v2-flash"), OPTIONS)
    assert (int(cache.full_bytes), int(cache.sliding_bytes)) == (5760, 49920)
    # Printed: 375,360 full and 300,288 sliding tokens, the sliding pool of 8.38 + 5.59 GiB.
    pool = 375360 * 5760 + 300288 * 49920
    assert cache.tokens(pool, 1) == 375360
    assert pytest.approx(8.38 + 5.59, abs=0.01) == 300288 * 49920 / 2**30
    assert cache.request_bytes(10**6) == 5760 * 10**6 + 49920 * (128 + 2048)
    assert cache.seats(pool, 100) == pytest.approx(3002.88)
    assert cache.seats(pool, 100_000) == pytest.approx(3.7536)
    assert cache.seats(0, 100) == cache.tokens(0, 100) == 0


def test_recurrent_slots_are_often_the_ceiling() -> None:
    shape = bundled("qwen3.5-35b-a3b")
    assert shape.state is not None
    cache = build_split_cache(shape, CacheOptions("bf16", unified=False))
    per_sequence = 30 * state_bytes(shape.state, 1)
    assert cache.sequence_bytes == per_sequence
    pool = 19 * 2**30
    assert cache.tokens(pool, 1) == 10 * 2**30 // 20480
    assert cache.seats(pool, 16) == pytest.approx(9 * 2**30 / per_sequence / 3)


def test_a_model_of_states_alone_has_no_tokens_to_count() -> None:
    cache = SplitCache(Fraction(0), Fraction(0), 1, 1000)
    assert cache.seats(19_000, 10**6) == pytest.approx(3.0)
    assert cache.tokens(19_000, 10**6) == pytest.approx(3 * 10**6)
