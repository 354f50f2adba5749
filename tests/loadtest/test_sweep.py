from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from proxy.loadtest import Options, Sources, read_endpoint, run
from proxy.loadtest.client.sweep import SweepError, hold_limit, loaded, sweep
from proxy.loadtest.workload import Arrival, Flow, Workload
from tests.loadtest.support import MODELS, Said, good, scripted, whole

CLOSED = Workload("w", (Flow("f"),), Arrival("closed", think_s=0.1), warmup_s=0, requests=4)
STATE = whole(json.dumps({"upstreams": [{"name": "a"}, {"name": "b"}]}).encode())


@pytest.mark.parametrize(
    ("start", "kind", "expected"),
    [
        (Arrival("closed", think_s=0.1), "concurrency", Arrival("closed", concurrency=7, think_s=0.1)),
        (Arrival("gamma", 3, cv=2), "rate", Arrival("gamma", 7, cv=2)),
        (Arrival("closed", concurrency=2), "rate", Arrival("poisson", 7)),
        (Arrival("closed", concurrency=2), "limit", Arrival("closed", concurrency=2)),
    ],
)
def test_a_setting_changes_the_arrivals(start: Arrival, kind: str, expected: Arrival) -> None:
    assert loaded(Workload("w", (), start), kind, 7.0).arrival == expected


def test_each_setting_is_measured_once_and_told() -> None:
    heard: list[tuple[float, int, bool]] = []

    async def scenario() -> dict[float, Any]:
        metrics = {"/v1/models": MODELS, "/metrics": whole(b"vllm:num_requests_running 3\n")}
        async with scripted(pages=metrics) as endpoint:
            options = Options(sources=Sources(endpoint.url))
            done: dict[float, Any] = {2.0: {"kept": True}}
            return await sweep(
                read_endpoint(endpoint.url), CLOSED, "concurrency", [1.0, 2.0, 3.0], options, done,
                lambda setting, points, ended: heard.append((setting, len(points), ended)),
            )  # fmt: skip

    done = run(scenario())
    assert heard == [(1, 1, False), (1, 2, True), (3, 2, False), (3, 3, True)]
    assert done[2.0] == {"kept": True}
    assert [done[one]["workload"]["arrival"]["concurrency"] for one in (1.0, 3.0)] == [1, 3]
    assert done[1.0]["total"]["successes"] == 4
    assert done[1.0]["engine"]["running"]["peak"] == 3
    assert "series" not in done[1.0]["engine"]


def test_an_interrupted_point_is_not_kept() -> None:
    async def scenario() -> dict[float, Any]:
        stop = asyncio.Event()
        async with scripted() as endpoint:
            endpoint.seen = lambda said: stop.set() if len(endpoint.asked) == 7 else None
            return await sweep(
                read_endpoint(endpoint.url), CLOSED, "concurrency", [1.0, 2.0, 3.0], Options(stop=stop), {},
                lambda setting, points, ended: None,
            )  # fmt: skip

    assert list(run(scenario())) == [1.0]


def test_limits_are_held_at_every_upstream_and_let_go() -> None:
    async def scenario() -> list[Said]:
        async with scripted(good(), pages={"/admin/state": STATE}) as endpoint:
            puts: list[Said] = []
            endpoint.seen = lambda said: puts.append(said) if said.line.startswith("PUT") else None
            endpoint.puts = whole({"held": True})
            sources = Sources(admin=endpoint.url, admin_token="sesame")
            await sweep(
                read_endpoint(endpoint.url), CLOSED, "limit", [4.0], Options(sources=sources), {},
                lambda setting, points, ended: None,
            )  # fmt: skip
            return puts

    puts = run(scenario())
    assert [(said.line.split()[1], said.json["limit"]) for said in puts] == [
        (f"/admin/upstreams/{name}/limit", limit) for limit in (4, None) for name in ("a", "b")
    ]
    assert puts[0].headers["authorization"] == "Bearer sesame"


@pytest.mark.parametrize(
    ("pages", "puts", "message"),
    [
        ({}, b"", "tells no upstreams \\(status 404\\); check --admin and"),
        ({"/admin/state": STATE}, whole({}, 403), "a limit cannot be set \\(status 403\\)"),
        ({"/admin/state": STATE}, b"?\r\n\r\n", "a limit cannot be set \\(answer is not HTTP\\)"),
    ],
)
def test_limits_that_cannot_be_set_are_told(pages: dict[str, bytes], puts: bytes, message: str) -> None:
    async def scenario() -> None:
        async with scripted(pages=pages, puts=puts) as endpoint:
            await hold_limit(Sources(admin=endpoint.url), 4)

    with pytest.raises(SweepError, match=message):
        run(scenario())


def test_an_admin_listener_that_is_not_there() -> None:
    with pytest.raises(SweepError, match=r"does not answer \(refused\); check --admin"):
        run(hold_limit(Sources(admin="http://127.0.0.1:9"), 4))
