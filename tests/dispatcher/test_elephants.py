"""Very long prompts: one at a time, and a rest after each where they are rare."""

from __future__ import annotations

import pytest

from proxy.dispatcher.elephants import COMMON_TOKENS, Elephants


@pytest.mark.parametrize(
    ("now", "mean_tokens", "blocks"),
    [
        pytest.param(13.9, 500, True, id="a rest as long as the prefill"),
        pytest.param(14.0, 500, False, id="it is over"),
        pytest.param(13.9, COMMON_TOKENS, False, id="where most are long there is no time to lose"),
    ],
)
def test_the_next_one_waits(now: float, mean_tokens: float, blocks: bool) -> None:
    elephants = Elephants()
    assert not elephants.block(500, 0.0)
    elephants.began()
    assert elephants.block(500, 11.0) and elephants.block(COMMON_TOKENS, 11.0)
    elephants.ended(10.0, 12.0)
    assert elephants.block(mean_tokens, now) == blocks
