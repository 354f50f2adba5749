"""What the end of an exchange tells: about the upstream's health, about overload, about sizes.

ending                       breaker   limit
success                      good      a sample
upstream_status 429, 503     bad if 5xx  cut: the engine sheds
upstream_status other 5xx    bad
upstream_status else         good
upstream_error mid-stream    bad       cut: reset
upstream_timeout             bad       cut: timeout
anything of ours or the client's   nothing
"""

from __future__ import annotations

from typing import Final, NamedTuple

from proxy.types import GENERATE, Failure, Outcome, Sample, Ticket, Usage, new_tuple


class Verdict(NamedTuple):
    """`works`: good, bad or silent about the upstream; `overload`: what calls for a cut of its limit."""

    works: bool | None
    overload: Failure | None


SILENT: Final = Verdict(None, None)
GOOD: Final = Verdict(True, None)
MAY_LINGER: Final = frozenset(
    {Outcome.CLIENT_GONE, Outcome.CLIENT_STALLED, Outcome.UPSTREAM_TIMEOUT, Outcome.DEADLINE_EXCEEDED}
    | {Outcome.SHUTTING_DOWN, Outcome.INTERNAL_ERROR}
)
SHED_STATUSES: Final = frozenset({429, 503})
_ENDINGS: Final = {
    Outcome.SUCCESS: GOOD,
    Outcome.UPSTREAM_ERROR: Verdict(False, Failure.RESET),
    Outcome.UPSTREAM_TIMEOUT: Verdict(False, Failure.TIMEOUT),
}
_FAILURES: Final = {
    Failure.CONNECT: Verdict(False, None),
    Failure.LOCAL: SILENT,
    Failure.SHED: Verdict(None, Failure.SHED),
    Failure.STALE: SILENT,
    Failure.RESET: Verdict(False, Failure.RESET),
    Failure.TIMEOUT: Verdict(False, Failure.TIMEOUT),
}


def of_ending(outcome: Outcome, status: int) -> Verdict:
    """Verdict of an exchange that got an answer, or was cut short."""
    if outcome is Outcome.UPSTREAM_STATUS:
        return Verdict(status < 500, Failure.SHED if status in SHED_STATUSES else None)
    return _ENDINGS.get(outcome, SILENT)


def of_failure(failure: Failure) -> Verdict:
    """Verdict of a try that failed before any response byte."""
    return _FAILURES[failure]


def tokens_used(ticket: Ticket, usage: Usage | None) -> tuple[int, int]:
    """Prompt and output tokens: reported, else estimated and seen."""
    if usage is None:
        return ticket.estimate.prompt_tokens, ticket.generated_tokens
    return usage.prompt_tokens, usage.completion_tokens


def lesson_of(ticket: Ticket, usage: Usage | None) -> Usage | None:
    """What the length predictor may learn: reported counts, else the tokens seen; a prompt of 0 teaches nothing."""
    if ticket.work is not GENERATE:
        return None
    if usage is None and ticket.generated_tokens:
        return Usage(completion_tokens=ticket.generated_tokens)
    return usage


def sample_of(
    ticket: Ticket, ahead_tokens: float, usage: Usage | None, now: float, last_token_s: float | None
) -> Sample:
    """The measurement of a success; its clock starts at dispatch."""
    cached_tokens = 0
    if usage is None:
        prompt_tokens, output_tokens = ticket.estimate.prompt_tokens, ticket.generated_tokens
    else:
        prompt_tokens, output_tokens, cached_tokens = usage
    dispatched_s = ticket.dispatched_s
    first_s = ticket.first_token_s if ticket.streaming else None
    ttft_s = tpot_s = None
    if first_s is not None:
        ttft_s = first_s - dispatched_s
        if last_token_s is not None and output_tokens >= 2:
            tpot_s = (last_token_s - first_s) / (output_tokens - 1)
    found = (
        ticket.work, ticket.streaming, prompt_tokens, cached_tokens, output_tokens, ttft_s, tpot_s, now - dispatched_s,
        ticket.epoch, ahead_tokens,
    )  # fmt: skip
    return new_tuple(Sample, found)
