"""Upstreams killed, frozen and flapping under load: nothing is lost, nothing is sent twice, each failure is explained.

What was being answered by an engine that dies cannot be saved: it may have been computed, so it is not sent again.
Everything else goes on at the other engine, and each request id reaches the engines at most once.
"""

from __future__ import annotations

import signal
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest

from tests.e2e.conftest import settings, upstream
from tests.e2e.counted_engine import CountedEngine
from tests.e2e.harness import ProxyProcess, assert_clean, running
from tests.e2e.load import Load
from tests.e2e.scripted_upstream import wait_for

WORKERS = 6
WATCHFUL = {"interval_s": 0.1, "timeout_s": 0.2, "fail_after": 2, "pass_after": 1}


@dataclass
class Pair:
    proxy: ProxyProcess
    first: CountedEngine
    second: CountedEngine

    def healthy(self, name: str = "first") -> bool:
        found: bool = self.proxy.upstream(name)["healthy"]
        return found

    def outcomes(self) -> Counter[str]:
        return Counter(self.proxy.state()["outcomes"])


@pytest.fixture(scope="module")
def _pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    folder = tmp_path_factory.mktemp("pair")
    with CountedEngine(folder, "first") as first, CountedEngine(folder, "second") as second:
        config = settings(
            upstream("first", first.url, "m"), upstream("second", second.url, "m"), probe=WATCHFUL,
            routing={"itl_timeout_s": 1, "ttft_timeout_s": 1, "response_timeout_s": 1},
        )  # fmt: skip
        with running(folder, config) as proxy:
            yield Pair(proxy, first, second)


@pytest.fixture
def pair(_pair: Pair) -> Iterator[Pair]:
    for engine in (_pair.first, _pair.second):
        engine.path.write_text("")
    yield _pair
    assert_clean(_pair.proxy)


def killed(pair: Pair, load: Load) -> int:
    pair.first.kill()
    load.wait_more(60)
    wait_for(lambda: not pair.healthy(), "the dead one is seen")
    pair.first.start()
    return WORKERS


def frozen(pair: Pair, load: Load) -> int:
    pair.first.send(signal.SIGSTOP)
    wait_for(lambda: not pair.healthy(), "the frozen one is seen")
    load.wait_more(60)
    pair.first.send(signal.SIGCONT)
    return 2 * WORKERS


def flapping(pair: Pair, load: Load) -> int:
    for _ in range(4):
        pair.first.kill()
        load.wait_more(10)
        pair.first.start()
        wait_for(pair.healthy, "it is back")
        load.wait_more(10)
    return 4 * WORKERS


@pytest.mark.parametrize("fault", [killed, frozen, flapping])
def test_an_engine_that_goes_takes_only_what_it_was_answering(pair: Pair, fault: Callable[[Pair, Load], int]) -> None:
    before = pair.outcomes()
    with Load(pair.proxy.port, WORKERS) as load:
        load.wait_more(60)
        may_fail = fault(pair, load)
        wait_for(pair.healthy, "it is back")
        served = len(pair.first.ids())
        wait_for(lambda: len(pair.first.ids()) > served + 10, "it gets work again")
    bad = load.bad()
    assert len(bad) <= may_fail, load.tally()
    explained = {(502, "upstream_error"), (504, "upstream_timeout"), (200, "")}  # the last: a stream with its event
    assert {(one.status, one.code) for one in bad} <= explained, load.tally()

    seen = Counter(pair.first.ids()) + Counter(pair.second.ids())
    assert {name: times for name, times in seen.items() if times > 1} == {}, "sent twice"
    assert [one for one in load.endings if one.good and seen[one.request_id] != 1] == [], "answered by nobody"
    assert seen.keys() <= {one.request_id for one in load.endings}
    ended = pair.outcomes() - before
    assert ended.total() == len(load.endings), "each request has exactly one outcome"
    assert ended["success"] == len(load.endings) - len(bad)


def test_with_no_engine_left_each_request_is_refused_at_once_and_all_is_well_afterwards(
    pair: Pair,
) -> None:
    with Load(pair.proxy.port, WORKERS) as load:
        load.wait_more(20)
        for engine in (pair.first, pair.second):
            engine.kill()
        load.wait_more(20, lambda ending: ending.code == "server_is_overloaded")
        for engine in (pair.first, pair.second):
            engine.start()
        load.wait_more(60)
    refused = {(one.status, one.code) for one in load.bad()}
    assert refused <= {(502, "upstream_error"), (503, "server_is_overloaded"), (200, "")}
