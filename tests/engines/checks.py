"""The proxy in front of real engines, driven by the openai SDK: `make test-engines`. Minutes, not seconds."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass

import openai
import pytest
from openai.types.chat import ChatCompletionMessageParam

from tests.e2e.harness import ProxyProcess, assert_clean, running
from tests.e2e.raw_client import RawClient, chat, post
from tests.e2e.scripted_upstream import HOST, wait_for
from tests.engines.engines import FOLDER, MAX_QUEUED, MAX_SEQUENCES, RealEngine, engine

MESSAGES: list[ChatCompletionMessageParam] = [{"role": "user", "content": "say something"}]
KEY = "any"


@dataclass
class Service:
    kind: str
    engine: RealEngine
    proxy: ProxyProcess

    @property
    def model(self) -> str:
        return "tiny" if self.kind == "vllm" else str(FOLDER / "model")

    def sdk(self, url: str = "") -> openai.OpenAI:
        return openai.OpenAI(api_key=KEY, base_url=(url or f"http://{HOST}:{self.proxy.port}") + "/v1", max_retries=0)

    def ask(self, tokens: int = 16) -> str:
        """How one plain request ends."""
        try:
            with self.sdk() as client:
                answer = client.chat.completions.create(
                    model=self.model, messages=MESSAGES, max_tokens=tokens
                )  # fmt: skip
        except openai.APIStatusError as error:
            return str(error.status_code)
        except openai.APIError as error:
            return type(error).__name__
        return "ok" if answer.choices else "empty"


@pytest.fixture(scope="module", params=["vllm", "transformers"])
def service(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp(request.param)
    with engine(request.param, folder) as real:
        config = {
            "upstreams": [{"name": "real", "url": real.url, "limit": {"initial": 4}}],
            "probe": {"interval_s": 0.5, "fail_after": 2, "pass_after": 1},
            "telemetry": {"interval_s": 0.5},
            "target": {"itl_ms": 500, "ttft_ms": 5000},
        }
        with running(folder, config) as proxy:
            yield Service(request.param, real, proxy)


@pytest.fixture
def vllm(service: Service) -> Service:
    if service.kind != "vllm":
        pytest.skip("tells nothing of itself")
    return service


def stream(service: Service, client: openai.OpenAI, tokens: int) -> tuple[str, int]:
    """Text and chunks of a stream of fixed length."""
    body = {"ignore_eos": True} if service.kind == "vllm" else {}
    events = client.chat.completions.create(
        model=service.model, messages=MESSAGES, max_tokens=tokens, temperature=0, stream=True, extra_body=body
    )  # fmt: skip
    texts = [event.choices[0].delta.content or "" for event in events if event.choices]
    return "".join(texts), len(texts)


def test_a_stream_is_the_one_that_the_engine_sends(service: Service) -> None:
    with service.sdk(service.engine.url) as direct, service.sdk() as through:
        there, here = stream(service, direct, 24), stream(service, through, 24)
    assert here[0] == there[0]
    assert here[1] >= 10
    assert service.ask() == "ok"
    assert_clean(service.proxy)


def test_the_engine_is_recognised_and_tells_its_memory(vllm: Service) -> None:
    wait_for(lambda: vllm.proxy.upstream("real")["ceiling_source"] == "engine", "the ceiling comes from the engine")
    told = int(vllm.engine.label("vllm:cache_config_info", "kv_cache_size_tokens"))
    state = vllm.proxy.upstream("real")
    assert state["ceiling_tokens"] == told
    assert vllm.proxy.state()["server"]["upstreams"]["real"]["engine"] == "vllm"


def test_leaving_stops_the_work_inside_the_engine(vllm: Service) -> None:
    with RawClient(vllm.proxy.port) as client:
        body = chat("tiny", stream=True, max_tokens=3000, ignore_eos=True)
        client.send(post(body, headers=["x-request-id: leaves"])).read_until(b"data: ")
        wait_for(lambda: vllm.engine.metric("vllm:num_requests_running") == 1, "it runs in the engine")
        wait_for(lambda: vllm.proxy.upstream("real")["engine_running"] == 1, "and the proxy knows")
    left_s = time.monotonic()
    wait_for(lambda: vllm.engine.metric("vllm:num_requests_running") == 0, "the engine has stopped", 5.0)
    print(f"stopped inside the engine {time.monotonic() - left_s:.3f} s after the client left")
    record = vllm.proxy.record("leaves")
    assert (record["outcome"], record["gone_phase"]) == ("client_gone", "streaming")
    assert record["abort_s"] < 0.25
    assert_clean(vllm.proxy)


def test_an_engine_that_sheds_is_believed_and_nothing_leaks(vllm: Service) -> None:
    """Far more seats than the engine takes: its own 503 reaches the client, and the limit comes down."""
    vllm.proxy.hold_limit("real", 64)
    at_once = MAX_SEQUENCES + MAX_QUEUED + 16
    with ThreadPoolExecutor(at_once) as pool:
        ends = Counter(pool.map(lambda _: vllm.ask(24), range(at_once)))
    print(f"{at_once} at once on {MAX_SEQUENCES} sequences and {MAX_QUEUED} places: {dict(ends)}")
    assert set(ends) <= {"ok", "503", "429"}
    assert ends["ok"] >= MAX_SEQUENCES + MAX_QUEUED
    vllm.proxy.hold_limit("real", None)
    assert_clean(vllm.proxy)
    assert vllm.ask() == "ok"


def test_the_limit_finds_what_the_engine_can_run(vllm: Service) -> None:
    """Sixteen clients in a closed loop: nobody is refused, and the engine's own queue stays short."""
    until_s, over = time.monotonic() + 30, threading.Event()
    ends: Counter[str] = Counter()

    def go_on(_: int) -> None:
        while time.monotonic() < until_s:
            ends[vllm.ask(32)] += 1

    waiting = []
    with ThreadPoolExecutor(17) as pool:
        for number in range(16):
            pool.submit(go_on, number)
        while time.monotonic() < until_s:
            over.wait(0.5)
            waiting.append(vllm.engine.metric("vllm:num_requests_waiting"))
    state = vllm.proxy.upstream("real")
    late = waiting[len(waiting) // 2 :]
    print(f"limit {state['limit']:.1f}, {dict(ends)}, waiting inside the engine {sum(late) / len(late):.1f} on average")
    assert set(ends) == {"ok"}
    assert_clean(vllm.proxy, 5.0)


def test_an_engine_that_is_killed_ends_its_streams_and_comes_back(service: Service) -> None:
    extra = {"ignore_eos": True} if service.kind == "vllm" else {}
    with RawClient(service.proxy.port) as client:
        client.socket.settimeout(60)
        body = chat(service.model, stream=True, max_tokens=3000, **extra)
        client.send(post(body, headers=["x-request-id: killed"])).read_until(b"data: ")
        service.engine.kill()
        found = client.answer()
    assert found.status == 200
    assert not found.complete
    assert b'"error"' in found.body
    assert service.proxy.record("killed")["outcome"] == "upstream_error"
    wait_for(lambda: service.ask() == "503", "requests are refused at once", 10.0)
    assert_clean(service.proxy)
    with suppress(ProcessLookupError):
        service.engine.restart()
    wait_for(lambda: service.ask() == "ok", "it serves again", 60.0)
    with service.sdk() as client_again:
        assert stream(service, client_again, 8)[1] >= 4
    assert_clean(service.proxy)
