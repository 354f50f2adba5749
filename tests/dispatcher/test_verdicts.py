"""The tables of what an ending tells."""

from __future__ import annotations

import pytest

from proxy.dispatcher.verdicts import MAY_LINGER, lesson_of, of_ending, of_failure, sample_of, tokens_used
from proxy.types import Failure, Outcome, Ticket, Usage, Work, WorkEstimate


@pytest.mark.parametrize(
    ("outcome", "status", "works", "overload"),
    [
        (Outcome.SUCCESS, 200, True, None),
        (Outcome.UPSTREAM_STATUS, 400, True, None),
        (Outcome.UPSTREAM_STATUS, 429, True, Failure.SHED),
        (Outcome.UPSTREAM_STATUS, 500, False, None),
        (Outcome.UPSTREAM_STATUS, 503, False, Failure.SHED),
        (Outcome.UPSTREAM_ERROR, 200, False, Failure.RESET),
        (Outcome.UPSTREAM_TIMEOUT, 0, False, Failure.TIMEOUT),
        (Outcome.CLIENT_GONE, 200, None, None),
        (Outcome.CLIENT_STALLED, 200, None, None),
        (Outcome.INTERNAL_ERROR, 0, None, None),
    ],
)
def test_endings(outcome: Outcome, status: int, works: bool | None, overload: Failure | None) -> None:
    assert of_ending(outcome, status) == (works, overload)


@pytest.mark.parametrize(
    ("failure", "works", "overload"),
    [
        (Failure.CONNECT, False, None),
        (Failure.SHED, None, Failure.SHED),
        (Failure.STALE, None, None),
        (Failure.RESET, False, Failure.RESET),
        (Failure.TIMEOUT, False, Failure.TIMEOUT),
    ],
)
def test_failures(failure: Failure, works: bool | None, overload: Failure | None) -> None:
    assert of_failure(failure) == (works, overload)


def test_the_engine_goes_on_only_where_we_cut_it_short() -> None:
    assert not {Outcome.SUCCESS, Outcome.UPSTREAM_STATUS, Outcome.UPSTREAM_ERROR} & MAY_LINGER


def ticket(streaming: bool = True, generated: int = 0, work: Work = Work.GENERATE) -> Ticket:
    one = Ticket(1, "a", 0, "m", work, streaming, WorkEstimate(prompt_tokens=80), 0, 0.0)
    one.dispatched_s, one.first_token_s, one.generated_tokens, one.epoch = 10.0, 10.5, generated, 3
    return one


@pytest.mark.parametrize(
    ("streaming", "usage", "last_s", "ttft_s", "tpot_s", "output"),
    [
        (True, Usage(100, 11, 40), 11.5, 0.5, 0.1, 11),
        (True, Usage(100, 1), 11.5, 0.5, None, 1),
        (True, None, 11.5, 0.5, 0.05, 21),
        (True, Usage(100, 11), None, 0.5, None, 11),
        (False, Usage(100, 11), 11.5, None, None, 11),
    ],
)
def test_samples(
    streaming: bool, usage: Usage | None, last_s: float | None, ttft_s: float | None, tpot_s: float | None, output: int
) -> None:
    sample = sample_of(ticket(streaming, 21), 7.0, usage, 12.0, last_s)
    assert (sample.ttft_s, sample.output_tokens) == (ttft_s, output)
    assert sample.tpot_s == (None if tpot_s is None else pytest.approx(tpot_s))
    assert (sample.duration_s, sample.epoch, sample.prefill_out_tokens) == (2.0, 3, 7.0)
    assert sample.prompt_tokens == (100 if usage else 80) and sample.cached_tokens == (
        usage.cached_tokens if usage else 0
    )


@pytest.mark.parametrize(
    ("one", "usage", "used", "lesson"),
    [
        (ticket(), Usage(100, 11), (100, 11), Usage(100, 11)),
        (ticket(generated=9), None, (80, 9), Usage(0, 9)),
        (ticket(), None, (80, 0), None),
        (ticket(work=Work.EMBED), Usage(100, 0), (100, 0), None),
    ],
)
def test_sizes(one: Ticket, usage: Usage | None, used: tuple[int, int], lesson: Usage | None) -> None:
    assert (tokens_used(one, usage), lesson_of(one, usage)) == (used, lesson)
