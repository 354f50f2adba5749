from __future__ import annotations

import pytest

from proxy.loadtest.records import Ending, judge_usage
from tests.loadtest.support import record


def test_latencies_count_from_the_time_a_request_was_due() -> None:
    one = record(due_s=2.0, ttft_s=0.5, itl_s=0.1, tokens=11, sent_s=2.3)
    assert one.ttft_s == pytest.approx(0.5)
    assert one.tpot_s == pytest.approx(0.1)
    assert one.e2e_s == pytest.approx(1.5)
    told = one.document()
    assert (told["ending"], told["ttft_s"], told["tpot_s"], told["e2e_s"]) == ("success", 0.5, 0.1, 1.5)


@pytest.mark.parametrize("more", [{"events": 1}, {"output_tokens": 1}, {"first_s": None}])
def test_there_is_no_time_per_token_without_two_of_them(more: dict[str, object]) -> None:
    assert record(**more).tpot_s is None  # type: ignore[arg-type]


def test_several_tokens_in_an_event_share_the_time() -> None:
    one = record(ttft_s=0.1, itl_s=0.06, tokens=11, output_tokens=31)
    assert one.tpot_s == pytest.approx(0.02)


@pytest.mark.parametrize(
    ("told", "problem", "events", "result"),
    [
        (10, None, 10, (10, "usage", "")),
        (30, None, 10, (30, "usage", "")),
        (10, None, 12, (10, "usage", "")),
        (10, None, 13, (13, "events", "below the events that came")),
        (0, None, 5, (5, "events", "below the events that came")),
        (51, None, 10, (10, "events", "above what was asked for")),
        (None, None, 10, (10, "events", "missing")),
        (None, "negative", 10, (10, "events", "malformed (negative)")),
    ],
)
def test_usage_is_believed_within_what_is_possible(
    told: int | None, problem: str | None, events: int, result: tuple[int, str, str]
) -> None:
    assert judge_usage(told, problem, events, asked=50) == result


def test_only_success_is_success() -> None:
    assert [ending for ending in Ending if record(ending=ending).ok] == [Ending.SUCCESS]
