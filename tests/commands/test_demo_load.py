from __future__ import annotations

import asyncio
import random
from collections import Counter
from itertools import pairwise

import pytest

from proxy.commands.demo_load import CLASSES, HALF_PERIOD_S, OUTSTANDING_MAX, demo_workload, send
from proxy.loadtest.workload import shots
from tests.loadtest.support import RESET, good, scripted


def test_requests_are_bounded_and_of_every_class_and_busy_times_are_three_times_as_busy() -> None:
    workload = demo_workload(20.0, 400.0, 1)
    made = list(shots(workload, random.Random(1)))
    seen = Counter(shot.flow.class_name for shot in made)
    assert seen.keys() == CLASSES.keys()
    assert seen.most_common(1)[0][0] == "normal"
    assert max(shot.prompt_tokens + shot.output_tokens for shot in made) <= 1900  # the demo's engine takes 2,048
    assert workload.in_flight_max == OUTSTANDING_MAX
    halves = Counter(int((shot.at_s or 0.0) // HALF_PERIOD_S % 2) for shot in made)
    assert halves[1] / halves[0] == pytest.approx(3, rel=0.1)
    assert len(made) / 400 == pytest.approx(20, rel=0.05)
    assert all((one.at_s or 0.0) <= (other.at_s or 0.0) for one, other in pairwise(made))


@pytest.mark.parametrize("script", [good(), RESET])
def test_it_sends_whatever_comes_back_and_ends_with_the_workload(script: bytes) -> None:
    async def scenario() -> set[str]:
        async with scripted(script) as endpoint, asyncio.timeout(10):
            await send(endpoint.url, demo_workload(200.0, 0.2, 1))
            return {said.json["model"] for said in endpoint.asked}

    assert asyncio.run(scenario()) == {"m"}


def test_without_a_model_it_says_so() -> None:
    with pytest.raises(LookupError, match="no model"):
        asyncio.run(send("http://127.0.0.1:9", demo_workload(1.0, 1.0, 1)))
