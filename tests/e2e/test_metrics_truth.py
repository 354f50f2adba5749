"""The page of metrics against what the clients saw and what the simulated engine counted, to the last unit."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import pytest

from tests.e2e.conftest import settings, upstream
from tests.e2e.engines import MODEL, SimulatedEngine
from tests.e2e.harness import ProxyProcess, running
from tests.e2e.raw_client import CHAT, Answer, RawClient, post
from tests.e2e.scripted_upstream import wait_for

SEATS = 12
AT_ONCE = 8
HELLO = [{"role": "user", "content": "Hello there, how are you today?"}]
USAGE = {"stream": True, "stream_options": {"include_usage": True}}
FIXED = {"model": MODEL, "max_tokens": 9, "ignore_eos": True}
LEAVERS = 10


@dataclass(frozen=True)
class Kind:
    """A sort of request; the answer's status, and the outcome that must be counted for it."""

    path: str
    body: Any
    outcome: str = "success"
    status: int = 200
    level: str = "normal"

    def request(self) -> bytes:
        return post(self.body, self.path, [f"x-priority: {self.level}"])


CHATTING = {**FIXED, "messages": HELLO}
KINDS = [
    Kind(CHAT, CHATTING),
    Kind(CHAT, CHATTING | USAGE, level="high"),
    Kind(CHAT, CHATTING | {"stream": True}),
    Kind("/v1/completions", {**FIXED, "prompt": "Once upon a time"} | USAGE),
    Kind(
        "/v1/responses", {"model": MODEL, "input": "Hello", "max_output_tokens": 9, "ignore_eos": True, "stream": True}
    ),
    Kind("/v1/messages", {**FIXED, "messages": HELLO, "stream": True}, level="high"),
    Kind("/v1/messages", {**FIXED, "messages": HELLO}),
    Kind("/v1/embeddings", {"model": MODEL, "input": ["one two three", "four"]}),
    Kind(CHAT, CHATTING | {"model": "absent"}, "bad_request", 404),
    Kind(CHAT, b"{", "bad_request", 400),
    Kind(CHAT, CHATTING | {"max_tokens": 39_990, "min_tokens": 50_000}, "upstream_status", 400),
]
EACH = 6
ESTIMATE = 40  # tokens of the body of a stream that tells no usage


def engine_tokens(found: Answer) -> tuple[int, int]:
    """What an answer says of its own tokens: of the prompt, of the output; the last one told wins."""
    told = [0, 0]

    def look(value: object) -> None:
        if isinstance(value, dict):
            for index, names in enumerate((("prompt_tokens", "input_tokens"), ("completion_tokens", "output_tokens"))):
                for name in names:
                    told[index] = value[name] if isinstance(value.get(name), int) else told[index]
            for inner in value.values():
                look(inner)

    texts = [line[6:] for line in found.body.splitlines() if line.startswith(b"data: {")] or [found.body]
    for text in texts:
        look(json.loads(text))
    return told[0], told[1]


@dataclass
class Service:
    proxy: ProxyProcess
    engine: SimulatedEngine

    def outcomes(self) -> dict[str, float]:
        names = ("success", "bad_request", "upstream_status", "client_gone", "queue_full", "queue_timeout")
        return {name: self.proxy.metric("penstock_requests_total", outcome=name) for name in names}


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    patient = {"ttft_timeout_s": 30, "itl_timeout_s": 30, "response_timeout_s": 30}
    with SimulatedEngine(speed=4) as engine:
        one = upstream("engine", engine.url, MODEL, seats=SEATS) | {"engine": "vllm"}
        with running(tmp_path_factory.mktemp("truth"), settings(one, routing=patient)) as proxy:
            yield Service(proxy, engine)


def test_mixed_load_is_counted_as_client_and_engine_counted_it(service: Service) -> None:
    def ask(kind: Kind) -> tuple[Kind, Answer]:
        with RawClient(service.proxy.port) as client:
            return kind, client.send(kind.request()).answer()

    with ThreadPoolExecutor(AT_ONCE) as pool:
        answers = list(pool.map(ask, KINDS * EACH))
    assert [(kind, found.status, found.body[:300]) for kind, found in answers if found.status != kind.status] == []
    seen = Counter(kind.outcome for kind, _ in answers)
    metric, told = service.proxy.metric, service.engine.metric
    service.proxy.wait_metric(len(answers), "penstock_requests_total")
    assert {name: count for name, count in service.outcomes().items() if count} == seen
    for level in ("high", "normal"):
        of_class = Counter(kind.outcome for kind, _ in answers if kind.level == level)
        for outcome in ("success", "upstream_status"):
            assert metric("penstock_requests_total", outcome=outcome, **{"class": level}) == of_class[outcome]

    served = [found for kind, found in answers if kind.outcome == "success"]
    by_usage = [engine_tokens(found) for found in served]
    output = metric("penstock_tokens_total", direction="output")
    assert output == told("vllm:generation_tokens_total") == 9 * EACH * 7
    prompts = told("vllm:prompt_tokens_total")  # 8 of each stream without usage, whose prompt can only be estimated
    assert sum(prompt for prompt, _ in by_usage) == prompts - 8 * EACH
    estimated = metric("penstock_tokens_total", direction="input") - (prompts - 8 * EACH)
    assert estimated == ESTIMATE * EACH
    assert metric("penstock_tenant_tokens_total", direction="output") == output
    assert metric("penstock_tenant_requests_total") == len(answers)

    from_engine = [found for kind, found in answers if kind.outcome in ("success", "upstream_status")]
    assert metric("penstock_time_to_first_token_seconds_count") == len(from_engine)
    assert metric("penstock_upstream_time_to_first_token_seconds_count", upstream="engine") == len(from_engine)
    assert metric("penstock_queue_wait_seconds_count", outcome="dispatched") == len(from_engine)
    assert metric("penstock_request_duration_seconds_count") == len(answers)
    assert metric("penstock_client_disconnects_total") == told("simulated_requests_aborted_total") == 0


def test_what_runs_waits_leaves_and_is_refused_is_counted_as_it_happened(service: Service) -> None:
    metric, before = service.proxy.metric, service.outcomes()
    first_tokens = metric("penstock_time_to_first_token_seconds_count")
    endless = Kind(CHAT, CHATTING | {"max_tokens": 3000, "stream": True})
    low = Kind(CHAT, CHATTING, level="low")  # two may wait, for half a second
    with ExitStack() as stack:
        leaving = [stack.enter_context(RawClient(service.proxy.port)) for _ in range(LEAVERS)]
        for client in leaving:
            client.send(endless.request()).read_until(b'"content":"')
        service.engine.wait_state(running=LEAVERS, waiting=0)
        service.proxy.wait_metric(LEAVERS, "penstock_in_flight", upstream="engine")
        service.proxy.wait_metric(LEAVERS, "penstock_engine_running", upstream="engine")
        service.proxy.hold_limit("engine", LEAVERS)
        queued = [stack.enter_context(RawClient(service.proxy.port)).send(endless.request()) for _ in range(3)]
        waiting = [stack.enter_context(RawClient(service.proxy.port)).send(low.request()) for _ in range(5)]
        refused = Counter(client.answer().error["code"] for client in waiting)
        assert refused == {"queue_full": 3, "queue_timeout": 2}
        service.proxy.wait_metric(3, "penstock_queue_depth", **{"class": "normal"})
        for client in queued:
            client.socket.close()
        service.proxy.wait_metric(3, "penstock_client_disconnects_total", phase="queued")
        for client in leaving:
            client.socket.close()
        wait_for(lambda: service.proxy.metric("penstock_in_flight") == 0, "all have left", 3.0)
    service.proxy.wait_metric(LEAVERS + 3, "penstock_client_disconnects_total")
    after = service.outcomes()
    grown = {name: after[name] - before[name] for name in after if after[name] != before[name]}
    assert grown == {"client_gone": LEAVERS + 3, "queue_full": 3, "queue_timeout": 2}
    phases = {name: metric("penstock_client_disconnects_total", phase=name) for name in ("queued", "streaming")}
    assert phases == {"queued": 3, "streaming": LEAVERS}
    assert (
        metric("penstock_abort_seconds_count") == service.engine.metric("simulated_requests_aborted_total") == LEAVERS
    )
    assert metric("penstock_time_to_first_token_seconds_count") == first_tokens + LEAVERS
    assert metric("penstock_queue_wait_seconds_count", outcome="queue_timeout") == 2
    assert metric("penstock_queue_wait_seconds_count", outcome="client_gone") == 3
    wasted = metric("penstock_wasted_tokens_total", reason="client_gone")
    generated = service.engine.metric("vllm:generation_tokens_total")
    assert LEAVERS <= wasted <= generated - 9 * EACH * 7
    assert metric("penstock_leaked_permits") == 0
