"""Prompts so long that their prefill slows everybody for seconds: one at a time, and a rest after each.

The engine computes such a prompt in chunks, each of which makes a step several times as long. One request that lives
through two of them in a row gets half of its tokens late, so after one prefill the next waits as long again - while
such prompts are the exception. Where they are the rule, there is nobody to spare and only time to lose.
"""

from __future__ import annotations

from math import inf
from typing import Final

from proxy.admission.step_model import CHUNK_TOKENS

ELEPHANT_TOKENS: Final = 4 * CHUNK_TOKENS
COMMON_TOKENS: Final = 2 * CHUNK_TOKENS  # mean prompt from which on they are the rule


class Elephants:
    """Those at one upstream that have not had their first token."""

    def __init__(self) -> None:
        self.count = 0
        self._rest_until_s = -inf

    def began(self) -> None:
        """One was dispatched."""
        self.count += 1

    def ended(self, dispatched_s: float, now: float) -> None:
        """The prefill of one is over, or its request."""
        self.count -= 1
        self._rest_until_s = now + (now - dispatched_s)

    def block(self, mean_prompt_tokens: float, now: float) -> bool:
        """Must the next one wait?"""
        return self.count > 0 or (now < self._rest_until_s and mean_prompt_tokens < COMMON_TOKENS)
