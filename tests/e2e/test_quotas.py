"""Bounds of tenants and of the queue: who is over one is told when to come back, and nobody else notices."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.e2e.conftest import CLASSES, settings, upstream
from tests.e2e.harness import ProxyProcess, assert_clean, running
from tests.e2e.raw_client import Answer, RawClient, chat, is_refusal, post
from tests.e2e.scripted_upstream import Do, ScriptedUpstream, answer, wait_for

TENANTS = {"calm": {}, "rated": {"requests_per_minute": 2}, "counted": {"tokens_per_minute": 300}, "eager": {}}
KIB = 1024


@dataclass
class Shared:
    """One seat, four places per class, 300 KiB of waiting bodies; half of each for one tenant."""

    proxy: ProxyProcess
    engine: ScriptedUpstream

    def request(self, tenant: str, size: int = 0, more: dict[str, object] | None = None) -> bytes:
        body = chat() | (more or {}) | ({"pad": "x" * size} if size else {})
        return post(body, headers=[f"Authorization: Bearer key-of-{tenant}", "x-priority: normal"])

    def ask(self, tenant: str, more: dict[str, object] | None = None) -> Answer:
        with RawClient(self.proxy.port) as client:
            return client.send(self.request(tenant, more=more)).answer()

    def occupy(self, stack: ExitStack) -> RawClient:
        """The one seat is taken until the engine is released."""
        self.engine.reset(Do.HOLD, answer())
        client = stack.enter_context(RawClient(self.proxy.port)).send(self.request("calm"))
        self.engine.wait_calls(1)
        return client

    def wait_queued(self, count: int) -> None:
        wait_for(lambda: sum(one["queued"] for one in self.proxy.state()["classes"]) == count, f"{count} wait", 2.0)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shared]:
    engine = ScriptedUpstream()
    listed = [
        {"name": name, "keys": ["sha256:" + hashlib.sha256(f"key-of-{name}".encode()).hexdigest()], **bounds}
        for name, bounds in TENANTS.items()
    ]
    config = settings(
        upstream("one", engine.url, "m", seats=1),
        tenants={"list": listed, "anonymous": {"allowed": False}},
        queue={"max_bytes": 300 * KIB, "tenant_share": 0.5},
        routing={"response_timeout_s": 10},
    )
    config["classes"] = [one | {"queue_max": 4} for one in CLASSES]
    with running(tmp_path_factory.mktemp("shared"), config) as proxy:
        yield Shared(proxy, engine)
    engine.close()


@pytest.mark.parametrize(
    ("tenant", "allowed", "more"),
    [
        pytest.param("rated", 2, {}, id="C24 requests per minute"),
        pytest.param("counted", 1, {"max_tokens": 250}, id="C24 tokens per minute"),
    ],
)
def test_a_tenant_over_its_rate_is_told_when_to_come_back(
    shared: Shared, tenant: str, allowed: int, more: dict[str, object]
) -> None:
    shared.engine.reset(answer('{"usage":{"prompt_tokens":60,"completion_tokens":250}}'))
    assert [shared.ask(tenant, more).status for _ in range(allowed)] == [200] * allowed
    found = shared.ask(tenant, more)
    is_refusal(found, 429, "rate_limit_exceeded")
    assert 1 <= int(found.headers["retry-after"]) <= 60
    assert shared.ask("calm").status == 200
    assert len(shared.engine.calls) == allowed + 1
    assert_clean(shared.proxy)


def test_c24_a_tenant_that_fills_its_share_of_the_queue_leaves_the_rest_to_others(shared: Shared) -> None:
    with ExitStack() as stack:
        runs = shared.occupy(stack)
        clients = [stack.enter_context(RawClient(shared.proxy.port)) for _ in range(4)]
        clients[3].send(shared.request("calm"))  # two tenants wait: each has its share
        shared.wait_queued(1)
        for count, client in enumerate(clients[:2], 2):
            client.send(shared.request("eager"))
            shared.wait_queued(count)
        clients[2].send(shared.request("eager"))
        found = clients[2].answer()
        is_refusal(found, 429, "rate_limit_exceeded")
        assert "retry-after" in found.headers
        shared.engine.release.set()
        assert [client.answer().status for client in (runs, clients[0], clients[1], clients[3])] == [200] * 4
    assert_clean(shared.proxy)


@pytest.mark.parametrize(
    ("waiting", "late"),
    [
        pytest.param([("eager", 100)], ("eager", 100), id="C25 a tenant's share of the bytes"),
        pytest.param([("eager", 140), ("calm", 140)], ("counted", 100), id="C25 bytes of all"),
    ],
)
def test_bodies_beyond_the_bytes_of_the_queue_are_refused_as_they_come(
    shared: Shared, waiting: list[tuple[str, int]], late: tuple[str, int]
) -> None:
    with ExitStack() as stack:
        runs = shared.occupy(stack)
        clients = []
        for count, (tenant, size) in enumerate(waiting, 1):
            clients.append(stack.enter_context(RawClient(shared.proxy.port)))
            clients[-1].send(shared.request(tenant, size * KIB))
            shared.wait_queued(count)
        held = shared.proxy.state()["queue_bytes"]
        with RawClient(shared.proxy.port) as over:
            found = over.send(shared.request(late[0], late[1] * KIB)).answer()
        is_refusal(found, 429, "queue_full")
        assert 1 <= int(found.headers["retry-after"]) <= 60
        assert shared.proxy.state()["queue_bytes"] == held
        shared.engine.release.set()
        assert [client.answer().status for client in (runs, *clients)] == [200] * (1 + len(clients))
    assert_clean(shared.proxy)


def test_c13_who_leaves_while_waiting_for_a_second_try_is_not_tried_again(tmp_path: Path) -> None:
    sheds, full = ScriptedUpstream(script=(Do.HOLD, answer("busy", 503))), ScriptedUpstream(script=(Do.HOLD, answer()))
    config = settings(
        upstream("sheds", sheds.url, "m", seats=1), upstream("full", full.url, "m", seats=1),
        routing={"response_timeout_s": 10, "retry_budget": 1.0},
    )  # fmt: skip
    with running(tmp_path, config) as proxy, ExitStack() as stack:
        clients = {name: stack.enter_context(RawClient(proxy.port)) for name in ("one", "two")}
        for name, client in clients.items():
            client.send(post(chat(user=name)))
        loser, keeper = (json.loads(one.wait_calls(1).body)["user"] for one in (sheds, full))
        sheds.release.set()  # sent back to wait for the other one, which is full
        wait_for(lambda: proxy.state()["classes"][1]["queued"] == 1, "one waits for its second try")
        clients[loser].socket.close()
        wait_for(lambda: proxy.state()["classes"][1]["queued"] == 0, "none waits", 1.0)
        full.release.set()
        assert clients[keeper].answer().status == 200
        time.sleep(0.05)
        assert (len(sheds.calls), len(full.calls)) == (1, 1)
    for one in (sheds, full):
        one.close()
