"""Loops, bounds and endings of whole runs, against an endpoint on loopback."""

from __future__ import annotations

import asyncio
import socket
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from proxy.loadtest.client.endpoint import read_endpoint
from proxy.loadtest.client.runner import HOPELESS_REQUESTS, Runner
from proxy.loadtest.records import Ending
from proxy.loadtest.stats import Tally
from proxy.loadtest.workload import Arrival, Flow, Lengths, TraceEntry, Workload
from tests.loadtest.support import HANG, STREAM, Scripted, chunk, good, scripted, token, whole

FLOW = Flow("f", prompt_tokens=Lengths(mean=5), output_tokens=Lengths(mean=8))


def workload(arrival: Arrival, **more: Any) -> Workload:
    return Workload("w", (FLOW,), arrival, **{"warmup_s": 0.0, "duration_s": 0.5} | more)


def played(
    load: Workload, *script: bytes, during: Callable[[Runner, Scripted], Any] | None = None, **more: Any
) -> tuple[Runner, Tally, Scripted]:
    async def scenario() -> tuple[Runner, Tally, Scripted]:
        async with scripted(*script, **more) as endpoint, asyncio.timeout(15):
            runner = Runner(read_endpoint(endpoint.url), load, "m")
            if during is not None:
                during(runner, endpoint)
            return runner, await runner.run(), endpoint

    return asyncio.run(scenario())


def test_an_open_loop_sends_when_due_whatever_comes_back() -> None:
    runner, tally, endpoint = played(workload(Arrival("constant", 40)))
    records = tally.whole().records
    assert len(records) == len(endpoint.asked) == 20
    assert sorted(round(record.due_s, 6) for record in records) == [round(index / 40, 6) for index in range(20)]
    assert Counter(record.ending for record in records) == {Ending.SUCCESS: 20}
    assert all(record.sent_s >= record.due_s for record in records)
    assert runner.send_delay.total == 20
    assert {said.json["max_tokens"] for said in endpoint.asked} == {8}


def test_a_seed_repeats_lengths_and_never_words() -> None:
    drawn = Flow("f", prompt_tokens=Lengths("uniform", minimum=20, maximum=90), output_tokens=Lengths(mean=8))
    load = Workload("w", (drawn,), Arrival("closed"), warmup_s=0.0, requests=10)
    first, again = ([said.json["messages"][0]["content"] for said in played(load)[2].asked] for _ in range(2))
    assert [len(text) for text in first] == [len(text) for text in again]
    assert not set(first) & set(again)


def test_warm_up_is_sent_but_not_counted() -> None:
    runner, tally, endpoint = played(workload(Arrival("constant", 40), warmup_s=0.25, duration_s=0.25))
    assert (len(endpoint.asked), len(tally.whole().records)) == (20, 10)
    assert runner.ended == 20


def test_a_closed_loop_keeps_its_number_under_way() -> None:
    most = 0

    def watch(runner: Runner, endpoint: Scripted) -> None:
        def seen(said: object) -> None:
            nonlocal most
            most = max(most, len(runner.live))

        endpoint.seen = seen

    _, tally, endpoint = played(workload(Arrival("closed", concurrency=3), requests=30), during=watch)
    assert len(endpoint.asked) == 30
    assert most == 3
    assert tally.until_s < 0.5  # full load ends where the last request was sent


def test_a_closed_loop_ends_on_time_and_waits_for_what_runs() -> None:
    _, tally, _ = played(workload(Arrival("closed", concurrency=2, think_s=0.05), duration_s=0.3))
    records = tally.whole().records
    assert all(record.ok for record in records)
    assert 6 <= len(records) <= 14
    assert tally.until_s == pytest.approx(0.3, abs=0.1)


def test_a_failure_is_followed_by_a_pause() -> None:
    runner, tally, _ = played(workload(Arrival("closed", concurrency=1), duration_s=0.4), whole({}, 500))
    assert 2 <= len(tally.whole().records) <= 8
    assert runner.failed == runner.ended == len(tally.whole().records)


def test_a_bound_of_our_own_delays_but_latency_counts_from_the_due_time() -> None:
    most = 0

    def watch(runner: Runner, endpoint: Scripted) -> None:
        def seen(said: object) -> None:
            nonlocal most
            most = max(most, len(runner.live))

        endpoint.seen = seen

    load = workload(Arrival("constant", 40_000), duration_s=0.001, in_flight_max=2)
    runner, tally, _ = played(
        load, STREAM, *[chunk(token())] * 30, chunk(b"data: [DONE]\n\n"), b"0\r\n\r\n", during=watch
    )
    records = tally.whole().records
    assert (len(records), most) == (40, 2)
    assert all(record.ok for record in records)
    late = records[-1]
    assert late.sent_s > late.due_s
    assert late.ttft_s is not None
    assert late.ttft_s > late.sent_s - late.due_s
    assert runner.send_delay.total == 0  # kept back on purpose: no fault of the generator


def test_requests_held_back_beyond_the_number_asked_for_are_dropped() -> None:
    _, tally, endpoint = played(workload(Arrival("constant", 5000), requests=5, in_flight_max=1))
    assert len(endpoint.asked) == len(tally.whole().records) == 5


def test_recorded_arrivals_are_sent_under_their_tenants_and_classes() -> None:
    trace = tuple(TraceEntry(at_s, tenant, "low", 5, 6) for at_s, tenant in ((0.0, "a"), (0.02, "b"), (0.04, "a")))
    _, tally, endpoint = played(workload(Arrival("trace"), trace=trace))
    assert {name: len(flow.records) for name, flow in tally.flows.items()} == {"a/low": 2, "b/low": 1}
    assert {(said.headers["x-tenant-id"], said.headers["x-priority"]) for said in endpoint.asked} == {
        ("a", "low"),
        ("b", "low"),
    }


def test_stopping_keeps_what_was_measured_and_blames_nobody() -> None:
    def stop_at_tenth(runner: Runner, endpoint: Scripted) -> None:
        def seen(said: object) -> None:
            if len(endpoint.asked) == 10:
                asyncio.get_running_loop().call_soon(runner.stop)

        endpoint.seen = seen

    script = [(good(),)] * 5
    load = workload(Arrival("constant", 200), duration_s=60.0)
    runner, tally, _ = played(load, STREAM, chunk(token()), HANG, during=stop_at_tenth, first=script)
    endings = Counter(record.ending for record in tally.whole().records)
    assert endings[Ending.SUCCESS] == 5
    assert set(endings) == {Ending.SUCCESS, Ending.INTERRUPTED}
    assert (runner.interrupted, runner.failed) == (True, 0)
    assert tally.until_s < 5


def test_where_nobody_listens_it_gives_up() -> None:
    async def scenario() -> tuple[Runner, Tally]:
        with socket.create_server(("127.0.0.1", 0)) as server:
            port = server.getsockname()[1]
        load = workload(Arrival("constant", 2000), duration_s=600.0)
        runner = Runner(read_endpoint(f"http://127.0.0.1:{port}"), load, "m")
        return runner, await runner.run()

    runner, _ = asyncio.run(scenario())
    assert runner.hopeless
    assert not runner.interrupted
    assert HOPELESS_REQUESTS <= runner.ended < 2 * HOPELESS_REQUESTS


def test_progress_tells_how_far_it_is() -> None:
    seen = []

    def watch(runner: Runner, endpoint: Scripted) -> None:
        endpoint.seen = lambda said: seen.append(runner.progress())

    played(workload(Arrival("closed", concurrency=1), requests=4), during=watch)
    assert [(one.started, one.ended, one.in_flight, one.failed) for one in seen] == [
        (1, 0, 1, 0), (2, 1, 1, 0), (3, 2, 1, 0), (4, 3, 1, 0),
    ]  # fmt: skip
    assert seen[0].ttft_p50_s is None
    assert seen[3].ttft_p50_s is not None
    assert (seen[3].end_s, seen[3].elapsed_s > 0) == (0.5, True)


def test_an_error_of_our_own_ends_the_run_and_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*arguments: object) -> bytes:
        raise RuntimeError("no prompt")

    monkeypatch.setattr("proxy.loadtest.prompts.Prompts.body", broken)
    with pytest.raises(RuntimeError, match="no prompt"):
        played(workload(Arrival("poisson", 50), duration_s=60.0))
    with pytest.raises(RuntimeError, match="no prompt"):
        played(workload(Arrival("closed")))
