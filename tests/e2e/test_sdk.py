"""The openai SDK, as programs use it, against the proxy in front of a simulated engine; Anthropic's route by bytes."""

from __future__ import annotations

import asyncio
import hashlib
import io
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI, OpenAI
from openai.types.chat import ChatCompletion

from tests.e2e.conftest import settings, upstream
from tests.e2e.engines import MODEL, SimulatedEngine
from tests.e2e.harness import ProxyProcess, assert_clean, free_port, running
from tests.e2e.raw_client import RawClient, post
from tests.e2e.scripted_upstream import wait_for

SEATS = 3
KEYS = {"acme": "sk-acme", "small": "sk-small"}
HELLO: Any = [{"role": "user", "content": "Hello there, how are you?"}]
EXACTLY_5: Any = {"model": MODEL, "messages": HELLO, "max_tokens": 5, "extra_body": {"ignore_eos": True}}
ENDLESS: Any = EXACTLY_5 | {"max_tokens": 20_000}


@dataclass
class Service:
    proxy: ProxyProcess
    engine: SimulatedEngine
    base_url: str

    def sdk(self, key: str = KEYS["acme"], retries: int = 0, **more: Any) -> OpenAI:
        return OpenAI(api_key=key, base_url=self.base_url, max_retries=retries, timeout=10, **more)

    @contextmanager
    def held(self, count: int, key: str = KEYS["acme"]) -> Iterator[None]:
        """Streams that take seats and do not end; closing them gives the seats back."""
        with self.sdk(key) as client:
            streams = [client.chat.completions.create(**ENDLESS, stream=True) for _ in range(count)]
            try:
                yield
            finally:
                for stream in streams:
                    stream.close()


@pytest.fixture(scope="module")
def _service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    hashes = {name: ["sha256:" + hashlib.sha256(key.encode()).hexdigest()] for name, key in KEYS.items()}
    with SimulatedEngine(speed=10) as engine:
        config = settings(
            upstream("engine", engine.url, MODEL, "audio", seats=SEATS) | {"engine": "vllm"},
            upstream("dead", f"http://127.0.0.1:{free_port()}", "dead"),
            tenants={
                "list": [
                    {"name": "acme", "keys": hashes["acme"]},
                    {"name": "small", "keys": hashes["small"], "max_in_flight": 1},
                ],
                "anonymous": {"allowed": False},
            },
            routing={"ttft_timeout_s": 30, "itl_timeout_s": 30, "response_timeout_s": 30, "retries": 1},
        )
        with running(tmp_path_factory.mktemp("sdk"), config) as proxy:
            yield Service(proxy, engine, f"http://127.0.0.1:{proxy.port}/v1")


@pytest.fixture
def service(_service: Service) -> Iterator[Service]:
    yield _service
    _service.engine.control(fail_next=[], stall=False)
    assert_clean(_service.proxy)


@pytest.fixture
def sdk(service: Service) -> Iterator[OpenAI]:
    with service.sdk() as client:
        yield client


# ---- what programs ask for ----


def test_models(sdk: OpenAI) -> None:
    assert sorted(model.id for model in sdk.models.list()) == ["audio", "dead", MODEL]
    found = sdk.models.retrieve(MODEL)
    assert (found.id, found.object, found.owned_by) == (MODEL, "model", "penstock-simulator")
    with pytest.raises(openai.NotFoundError):
        sdk.models.retrieve("absent")


def whole(found: ChatCompletion) -> None:
    choice = found.choices[0]
    assert choice.message.content
    assert (choice.finish_reason, found.model) == ("length", MODEL)
    assert found.usage is not None
    assert found.usage.completion_tokens == 5


def test_chat_whole_and_streamed(sdk: OpenAI) -> None:
    whole(sdk.chat.completions.create(**EXACTLY_5))
    events = list(sdk.chat.completions.create(**EXACTLY_5, stream=True))
    assert len([event for event in events if event.choices and event.choices[0].delta.content]) == 5
    assert events[-1].choices[0].finish_reason == "length"
    assert all(event.usage is None for event in events)
    told = list(sdk.chat.completions.create(**EXACTLY_5, stream=True, stream_options={"include_usage": True}))[-1]
    assert told.usage is not None
    assert told.usage.completion_tokens == 5


def test_the_async_client_many_at_once(service: Service) -> None:
    async def ask_all() -> None:
        async with AsyncOpenAI(api_key=KEYS["acme"], base_url=service.base_url, max_retries=0) as client:
            for found in await asyncio.gather(*(client.chat.completions.create(**EXACTLY_5) for _ in range(20))):
                whole(found)
            async with await client.chat.completions.create(**EXACTLY_5, stream=True) as stream:
                assert len([event async for event in stream if event.choices[0].delta.content]) == 5

    asyncio.run(ask_all())


def test_completions_with_several_choices(sdk: OpenAI) -> None:
    found = sdk.completions.create(model=MODEL, prompt="Once", max_tokens=4, n=2, extra_body={"ignore_eos": True})
    assert [choice.index for choice in found.choices] == [0, 1]
    assert found.usage is not None
    assert found.usage.completion_tokens == 8
    pieces = list(sdk.completions.create(model=MODEL, prompt="Once", max_tokens=4, stream=True))
    assert "".join(piece.choices[0].text for piece in pieces if piece.choices)


def test_responses_whole_and_streamed(sdk: OpenAI) -> None:
    found = sdk.responses.create(model=MODEL, input="Hello", max_output_tokens=6, extra_body={"ignore_eos": True})
    assert found.output_text
    assert found.usage is not None
    assert found.usage.output_tokens == 6
    kinds = [event.type for event in sdk.responses.create(model=MODEL, input="Hello", max_output_tokens=6, stream=True)]
    assert (kinds[0], kinds[-1]) == ("response.created", "response.completed")
    assert "response.output_text.delta" in kinds


def test_embeddings(sdk: OpenAI) -> None:
    found = sdk.embeddings.create(model=MODEL, input=["one", "two"], encoding_format="float")
    assert [entry.index for entry in found.data] == [0, 1]
    assert len(found.data[0].embedding) > 8
    assert len(sdk.embeddings.create(model=MODEL, input="one").data[0].embedding) > 8  # base64 on the wire


def test_transcription_as_a_form(sdk: OpenAI) -> None:
    sound = io.BytesIO(b"RIFF" + b"\0" * 100_000)
    sound.name = "a.wav"
    assert sdk.audio.transcriptions.create(model=MODEL, file=sound).text
    sound.seek(0)
    told = sdk.audio.transcriptions.create(model=MODEL, file=sound, response_format="text")
    assert isinstance(told, str)


def test_speech_comes_as_bytes(sdk: OpenAI) -> None:
    with sdk.audio.speech.with_streaming_response.create(model=MODEL, voice="alloy", input="Hi") as found:
        assert sum(map(len, found.iter_bytes())) > 0


def test_the_id_of_the_answer_is_the_id_in_the_log(service: Service, sdk: OpenAI) -> None:
    found = sdk.chat.completions.with_raw_response.create(**EXACTLY_5)
    assert found.request_id is not None
    line = service.proxy.record(found.request_id)
    assert (line["outcome"], line["tenant"], line["output_tokens"]) == ("success", "acme", 5)


# ---- errors ----


@pytest.mark.parametrize(
    ("key", "asked", "kind", "status", "code"),
    [
        ("sk-wrong", {}, openai.AuthenticationError, 401, "invalid_api_key"),
        (KEYS["acme"], {"model": "absent"}, openai.NotFoundError, 404, "model_not_found"),
        (KEYS["acme"], {"messages": "no list", "stream": "yes"}, openai.BadRequestError, 400, "invalid_value"),
        (KEYS["acme"], {"n": 1000}, openai.BadRequestError, 400, "invalid_value"),
        (KEYS["acme"], {"max_tokens": -1}, openai.BadRequestError, 400, "invalid_value"),
        (KEYS["acme"], {"model": "audio"}, openai.NotFoundError, 404, "model_not_found"),  # the engine's own answer
    ],
)
def test_errors_have_the_sdks_own_types_and_are_not_tried_again(
    service: Service, key: str, asked: Any, kind: type[openai.APIStatusError], status: int, code: str
) -> None:
    with service.sdk(key, retries=2) as client:
        started_s = time.monotonic()
        with pytest.raises(kind) as caught:
            client.chat.completions.create(**EXACTLY_5 | asked)
    error = caught.value
    assert (error.status_code, error.code) == (status, code)
    assert isinstance(error.body, dict)
    assert error.body["message"]
    assert error.request_id
    assert key not in str(error)
    assert time.monotonic() - started_s < 0.4


def test_a_tenant_over_its_bound_is_told_when_to_come_back_and_the_sdk_does(service: Service) -> None:
    with service.sdk(KEYS["small"]) as once, service.sdk(KEYS["small"], retries=2) as patient:
        with service.held(1, KEYS["small"]):
            with pytest.raises(openai.RateLimitError) as caught:
                once.chat.completions.create(**EXACTLY_5)
            assert caught.value.code == "rate_limit_exceeded"
            assert 1 <= int(caught.value.response.headers["retry-after"]) <= 60
            before = service.proxy.state()["outcomes"]["rate_limited"]
            answers: list[ChatCompletion] = []
            asks = threading.Thread(target=lambda: answers.append(patient.chat.completions.create(**EXACTLY_5)))
            asks.start()
            wait_for(lambda: service.proxy.state()["outcomes"]["rate_limited"] > before, "it is refused once")
        asks.join()
        whole(answers[0])
    wait_for(lambda: service.proxy.metric("penstock_client_retries_total") >= 1, "the SDK's retry is counted", 3.0)


def test_the_engines_own_refusal_is_passed_on_with_its_time_and_the_sdk_comes_back(service: Service) -> None:
    service.engine.control(fail_next=[503])  # there is no other upstream that the proxy could try
    with service.sdk(retries=1) as client:
        found = client.chat.completions.with_raw_response.create(**EXACTLY_5)
        assert found.retries_taken == 1
        whole(found.parse())


def test_waiting_too_long_and_no_upstream_are_503_with_a_time(service: Service) -> None:
    low: Any = {"extra_headers": {"x-priority": "low"}}  # its queue time is half a second
    with service.held(SEATS), service.sdk() as client:
        with pytest.raises(openai.InternalServerError) as caught:
            client.chat.completions.create(**EXACTLY_5, **low)
        assert (caught.value.status_code, caught.value.code) == (503, "queue_timeout")
        assert int(caught.value.response.headers["retry-after"]) >= 1
        with pytest.raises(openai.InternalServerError) as caught:
            client.chat.completions.create(**EXACTLY_5 | {"model": "dead"})
        assert (caught.value.status_code, caught.value.code) == (503, "server_is_overloaded")
        assert int(caught.value.response.headers["retry-after"]) >= 1


def test_the_sdks_timeout_frees_the_engine(service: Service) -> None:
    aborted = service.engine.control()["aborted"]
    with service.sdk() as client, pytest.raises(openai.APITimeoutError):
        client.chat.completions.create(**ENDLESS, timeout=0.3)
    service.engine.wait_state(1.0, aborted=aborted + 1, running=0)


def test_a_deadline_that_cannot_be_met_is_not_tried_again(service: Service) -> None:
    spent: Any = {"extra_headers": {"x-request-timeout-ms": "1"}}
    before = service.proxy.state()["outcomes"]["deadline_exceeded"]
    with service.held(SEATS), service.sdk(retries=2) as client, pytest.raises(openai.InternalServerError) as caught:
        client.chat.completions.create(**EXACTLY_5, **spent)
    assert (caught.value.status_code, caught.value.code) == (504, "deadline_exceeded")
    assert service.proxy.state()["outcomes"]["deadline_exceeded"] == before + 1


def test_a_stream_that_breaks_is_an_error_and_not_a_short_answer(service: Service, sdk: OpenAI) -> None:
    service.engine.control(cut_next=1, cut_tokens=2)
    seen = 0
    with pytest.raises(openai.APIError) as caught:
        for _ in sdk.chat.completions.create(**EXACTLY_5, stream=True):
            seen += 1
    assert seen >= 2
    assert caught.value.code == "upstream_error"


# ---- Anthropic's route ----


def messages(service: Service, key: str = KEYS["acme"], **asked: Any) -> tuple[int, bytes]:
    body = {"model": MODEL, "messages": HELLO, "max_tokens": 5, "ignore_eos": True, **asked}
    with RawClient(service.proxy.port) as client:
        found = client.send(post(body, "/v1/messages", [f"x-api-key: {key}", "anthropic-version: 2023-06-01"])).answer()
    assert found.complete
    assert found.headers["request-id"]
    return found.status, found.body


def test_messages_whole_and_streamed(service: Service) -> None:
    status, body = messages(service)
    found = json.loads(body)
    assert (status, found["type"], found["usage"]["output_tokens"]) == (200, "message", 5)
    status, body = messages(service, stream=True)
    kinds = [line.removeprefix(b"event: ") for line in body.splitlines() if line.startswith(b"event: ")]
    assert (status, kinds[0], kinds[-1], kinds.count(b"content_block_delta")) == (
        200, b"message_start", b"message_stop", 5,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("asked", "status", "kind"),
    [
        ({"key": "sk-wrong"}, 401, "authentication_error"),
        ({"model": "absent"}, 404, "not_found_error"),
        ({"max_tokens": -1}, 400, "invalid_request_error"),
    ],
)
def test_errors_of_messages_have_anthropics_shape(service: Service, asked: Any, status: int, kind: str) -> None:
    found, body = messages(service, **asked)
    told = json.loads(body)
    assert (found, told["type"], told["error"]["type"]) == (status, "error", kind)
