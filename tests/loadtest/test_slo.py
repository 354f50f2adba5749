from __future__ import annotations

import pytest

from proxy.loadtest.records import Ending
from proxy.loadtest.slo import Slo, read_slo
from tests.loadtest.support import record


@pytest.mark.parametrize(
    ("text", "slo", "shown"),
    [
        ("ttft=500ms,itl=50ms", Slo(0.5, 0.05), "ttft=500ms,itl=50ms"),
        (" e2e = 10s , tpot=.5s", Slo(None, 0.5, 10), "itl=500ms,e2e=10000ms"),
        ("ttft=250us", Slo(0.00025), "ttft=0.25ms"),
    ],
)
def test_objectives_are_read_and_shown(text: str, slo: Slo, shown: str) -> None:
    assert (read_slo(text), str(slo), bool(slo)) == (slo, shown, True)
    assert not Slo()


@pytest.mark.parametrize("text", ["", "ttft", "ttft=5", "ttft=-5ms", "ttft=0ms", "p99=5ms", "itl=5ms,tpot=5ms"])
def test_other_words_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"write for example|give it once"):
        read_slo(text)


@pytest.mark.parametrize(
    ("slo", "met"),
    [
        (Slo(0.1, 0.02, 0.3), True),
        (Slo(0.09), False),
        (Slo(None, 0.019), False),
        (Slo(None, None, 0.29), False),
    ],
)
def test_a_request_is_good_within_all_bounds(slo: Slo, met: bool) -> None:
    one = record(ttft_s=0.1, itl_s=0.02, tokens=11)
    one.first_s, one.last_s, one.ended_s = 0.1, 0.3, 0.3
    assert slo.met(one) is met
    assert not slo.met(record(ending=Ending.RESET))


def test_what_a_request_cannot_show_does_not_fail_it() -> None:
    assert Slo(0.001, 0.001).met(record(first_s=None, last_s=None, events=0))
