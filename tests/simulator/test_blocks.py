from __future__ import annotations

import pytest

from proxy.simulator.blocks import BlockPool, blocks_for


@pytest.mark.parametrize(("tokens", "blocks"), [(0, 0), (1, 1), (15, 1), (16, 1), (17, 2), (160, 10)])
def test_a_begun_block_is_a_whole_block(tokens: int, blocks: int) -> None:
    assert blocks_for(tokens, 16) == blocks


def test_the_pool_neither_overdraws_nor_overfills() -> None:
    pool = BlockPool(10)
    pool.take(10)
    assert (pool.free, repr(pool)) == (0, "BlockPool(10/10)")
    with pytest.raises(ValueError, match="1 blocks asked"):
        pool.take(1)
    pool.give(4)
    with pytest.raises(ValueError, match="7 blocks given back"):
        pool.give(7)
    assert (pool.used, pool.free) == (6, 4)
