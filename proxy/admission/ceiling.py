"""The hard bound from memory, in tokens and in seats.

Seats that K tokens of KV cache hold, phi = usable share of K:

    seats = floor(phi K / blocks(P + O (1 + CV^2) / 2))

P, O: mean prompt and output tokens, CV: coefficient of variation of O. The requests found running at a random moment
are length-biased, so one has generated O (1 + CV^2) / 2 tokens on average (mean residual life of renewal theory, Cox
1962). Sizes round up to blocks of the paged cache (vLLM: 16 tokens).
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil
from typing import Literal

Source = Literal["engine", "plan", "config", "none"]


@dataclass(frozen=True, slots=True)
class MemoryBound:
    """KV capacity in tokens, hard number of seats, longest request in tokens (None: unknown), and who said so."""

    tokens: int | None = None
    seats: int | None = None
    context_tokens: int | None = None
    source: Source = "none"


def seats_for(
    tokens: float, phi: float, mean_prompt: float, mean_output: float, output_cv: float, block: int = 16
) -> int:
    """How many requests of the measured size fit into `tokens`, at least 1."""
    request_tokens = mean_prompt + 0.5 * mean_output * (1 + output_cv**2)
    return max(1, int(phi * tokens // (max(1, ceil(request_tokens / block)) * block)))


def resolve(configured: MemoryBound | None, live: MemoryBound | None, planned: MemoryBound | None) -> MemoryBound:
    """The bound that holds: the operator's own number, else what the engine tells, else the plan.

    Tokens come from the first that knows them; seats and context are the lowest of those known, since each of them is
    a refusal that the engine, or the operator, will enforce.
    """
    known = [bound for bound in (configured, live, planned) if bound is not None]
    telling = next((bound for bound in known if bound.tokens is not None), None)
    naming = telling or next((bound for bound in known if bound.seats is not None), None)
    return MemoryBound(
        tokens=None if telling is None else telling.tokens,
        seats=min((bound.seats for bound in known if bound.seats is not None), default=None),
        context_tokens=min((bound.context_tokens for bound in known if bound.context_tokens is not None), default=None),
        source="none" if naming is None else naming.source,
    )
