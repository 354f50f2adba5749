"""What runs are judged by."""

from __future__ import annotations

from math import inf

import pytest

from proxy.admission.limits import Target
from proxy.laboratory import measures
from proxy.laboratory.bench import Request
from proxy.laboratory.lab import Moment
from proxy.laboratory.workload import Arrival
from proxy.types import Outcome, Ticket, Work, WorkEstimate

TARGET = Target(itl_s=0.1, ttft_s=0.5)


def request(
    ended_s: float, ttft_s: float, itl_s: float, outcome: Outcome = Outcome.SUCCESS, work: Work = Work.GENERATE
) -> Request:
    arrival = Arrival(0.5, 30, 11 if work is Work.GENERATE else 0, class_index=1, work=work)
    one = Request(arrival, Ticket(1, "t", 1, "m", work, True, WorkEstimate(), 0, 0.5), outcome)
    one.ticket.dispatched_s = ended_s - ttft_s - 10 * itl_s
    one.ended_s = one.last_s = ended_s
    one.first_s = one.ticket.dispatched_s + ttft_s if work is Work.GENERATE else None
    return one


REQUESTS = [
    request(10, 0.2, 0.05),
    request(11, 0.2, 0.2),
    request(12, 0.9, 0.05),
    request(13, 0.2, 0.05, Outcome.QUEUE_TIMEOUT),
    request(14, 0.4, 0.0, work=Work.EMBED),
    request(30, 0.2, 0.05),
]


def test_goodput_counts_tokens_of_what_met_both_targets_in_the_window() -> None:
    assert measures.goodput(REQUESTS, TARGET, (10, 20)) == pytest.approx((11 + 30) / 10)
    assert measures.attainment(REQUESTS, TARGET, (10, 20)) == pytest.approx(2 / 4)
    assert measures.attainment(REQUESTS, TARGET, (50, 60)) == 1.0
    assert len(measures.served(REQUESTS)) == 5 and not measures.served(REQUESTS, class_index=0)
    assert len(measures.arrived(REQUESTS, (0, 1), 1)) == 6 and not measures.arrived(REQUESTS, (1, 2))


def moment(at_s: float, in_flight: int, proxy: int = 0) -> Moment:
    return Moment(at_s, proxy, "engine", 0.0, in_flight, 0, 0, 0, 0.0, 0.0)


@pytest.mark.parametrize(
    ("in_flight", "settled"),
    [([10, 50, 95, 105, 100, 100], 2.0), ([100] * 6, 0.0), ([10] * 6, inf), ([100, 10, 10, 10, 95, 95], 4.0)],
)
def test_settled_is_when_it_stays_near(in_flight: list[int], settled: float) -> None:
    moments = [moment(at_s + 3.0, value) for at_s, value in enumerate(in_flight)]
    moments += [moment(at_s, 100, proxy=1) for at_s in range(9)]
    assert measures.settled_s(moments, 100, 0.1, (3.0, 99.0)) == settled


def test_small_statistics() -> None:
    assert measures.quantile([3, 1, 2], 0.5) == 2 and measures.quantile([3, 1, 2], 1.0) == 3
    assert measures.quantile([], 0.5) == measures.mean([]) == measures.variation([]) == 0.0
    assert measures.jain([1, 1, 1]) == pytest.approx(1) and measures.jain([1, 0, 0]) == pytest.approx(1 / 3)
    assert measures.jain([]) == 1.0
    assert measures.variation([1, 3]) == 0.5
