from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp
import openai
import orjson
import pytest

from proxy.simulator.profiles import EngineProfile
from proxy.simulator.server.bodies import parse
from tests.simulator.serving import PROFILE, Served, served

ENDLESS = {"messages": "x", "max_tokens": 900, "ignore_eos": True}
CHAT = "/v1/chat/completions"


def with_engine(
    scenario: Callable[[Served], Awaitable[None]], profile: EngineProfile = PROFILE, speed: float = 200.0
) -> None:
    async def run() -> None:
        async with asyncio.timeout(10), served(profile, speed) as engine:
            await scenario(engine)

    asyncio.run(run())


async def post(engine: Served, path: str, **body: Any) -> tuple[int, Any]:
    async with engine.http.post(engine.url + path, json=body) as answer:
        return answer.status, orjson.loads(await answer.read())


def test_it_names_itself_and_its_model() -> None:
    async def scenario(engine: Served) -> None:
        (model,) = (await engine.sdk.models.list()).data
        assert (model.id, model.owned_by) == ("m", "penstock-simulator")
        assert model.model_extra is not None and model.model_extra["max_model_len"] == 1000
        async with engine.http.get(engine.url + "/version") as answer:
            assert "penstock-simulator" in (await answer.json())["version"]

    with_engine(scenario)


def test_embeddings_rerank_score_and_tokens() -> None:
    async def scenario(engine: Served) -> None:
        vectors = await engine.sdk.embeddings.create(model="m", input=["a" * 8, "b"])
        assert [len(item.embedding) for item in vectors.data] == [64, 64] and vectors.usage.prompt_tokens == 3
        for prefix in ("", "/v1"):
            _, ranked = await post(engine, prefix + "/rerank", query="q", documents=["a", "b"], top_n=1)
            assert [result["index"] for result in ranked["results"]] == [0]
            _, scored = await post(engine, prefix + "/score", text_1="q", text_2=["a", "b"])
            assert [item["score"] for item in scored["data"]] == [1.0, 0.5]
        _, tokens = await post(engine, "/tokenize", prompt="Grüße")
        assert tokens["count"] == len(tokens["tokens"]) == 2
        assert (await post(engine, "/detokenize", tokens=tokens["tokens"]))[1] == {"prompt": "Grüße"}
        _, counted = await post(engine, "/v1/messages/count_tokens", messages=[{"content": "x" * 40}])
        assert counted == {"input_tokens": 10}

    with_engine(scenario)


def test_transcription_reads_an_upload() -> None:
    async def scenario(engine: Served) -> None:
        heard = await engine.sdk.audio.transcriptions.create(model="m", file=("a.wav", b"\0" * 64_000))
        assert heard.text.startswith("This ") and await engine.metric("vllm:prompt_tokens_total") == 100
        plain = await engine.sdk.audio.transcriptions.create(model="m", file=("a.wav", b"0"), response_format="text")
        assert plain.startswith("This ")
        async with engine.http.post(engine.url + "/v1/audio/transcriptions", data={"file": "text"}) as answer:
            assert (answer.status, (await answer.json())["error"]["param"]) == (400, "file")

    with_engine(scenario)


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "code"),
    [
        ("POST", CHAT, b'{"model": "gpt"}', 404, "model_not_found"),
        ("POST", CHAT, b'{"messages": "x", "max_tokens": 1000}', 400, "context_length_exceeded"),
        ("POST", CHAT, b"{", 400, "invalid_json"),
        ("POST", CHAT, b'{"messages": "x", "max_tokens": -1}', 400, "invalid_value"),
        ("POST", "/tokenize", b'{"prompt": 5}', 400, "invalid_value"),
        ("POST", "/detokenize", b'{"tokens": "x"}', 400, "invalid_value"),
        ("POST", "/sim/control", b'{"speed": 2}', 400, "invalid_value"),
        ("POST", "/v1/nothing", b"{}", 404, "not_found"),
        ("GET", CHAT, b"", 405, "method_not_allowed"),
    ],
)
def test_errors_have_openai_s_shape(method: str, path: str, body: bytes, status: int, code: str) -> None:
    async def scenario(engine: Served) -> None:
        async with engine.http.request(method, engine.url + path, data=body) as answer:
            error = (await answer.json())["error"]
            assert (answer.status, error["code"], set(error)) == (status, code, {"message", "type", "param", "code"})
            assert answer.headers.get("allow") == ("POST" if status == 405 else None)

    with_engine(scenario)


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_leaves_is_aborted_at_once(stream: bool) -> None:
    async def scenario(engine: Served) -> None:
        connections = []
        body = orjson.dumps({**ENDLESS, "stream": stream, "n": 2})
        for _ in range(2):
            _, writer = await asyncio.open_connection(*engine.url.removeprefix("http://").split(":"))
            writer.write(
                b"POST %b HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % (CHAT.encode(), len(body)) + body
            )
            connections.append(writer)
        await engine.until("vllm:num_requests_running", 4)
        connections[0].close()
        await engine.until("simulated_requests_aborted_total", 2)
        assert await engine.metric("vllm:num_requests_running") == 2
        connections[1].transport.abort()
        await engine.until("simulated_requests_aborted_total", 4)
        assert await engine.metric("vllm:kv_cache_usage_perc") == 0

    with_engine(scenario, speed=1.0)


def test_a_lost_client_in_the_queue_is_aborted_too() -> None:
    async def scenario(engine: Served) -> None:
        jobs = [asyncio.ensure_future(post(engine, CHAT, **ENDLESS)) for _ in range(2)]
        await engine.until("vllm:num_requests_waiting", 1)
        for job in jobs:
            job.cancel()
        await engine.until("simulated_requests_aborted_total", 2)

    with_engine(scenario, dataclasses.replace(PROFILE, max_seqs=1), speed=1.0)


def test_failures_resets_and_cuts_happen_on_demand() -> None:
    async def scenario(engine: Served) -> None:
        small = {"messages": "x", "max_tokens": 9, "ignore_eos": True}
        assert await engine.control(fail_next=[503], fail_status=500) == 200
        with pytest.raises(openai.APIStatusError) as caught:
            await engine.sdk.chat.completions.create(model="m", messages=[], max_tokens=1)
        assert (caught.value.status_code, caught.value.response.headers["retry-after"]) == (503, "1")
        assert (await post(engine, CHAT, **small))[0] == 500
        assert await engine.control(fail_status=None, reset_next=1, cut_next=1, cut_tokens=2) == 200
        with pytest.raises(aiohttp.ServerDisconnectedError):
            await post(engine, CHAT, **small)
        async with engine.http.post(engine.url + CHAT, json={**small, "stream": True}) as answer:
            received = b""
            with pytest.raises(aiohttp.ClientPayloadError):
                async for piece in answer.content.iter_any():
                    received += piece
        assert received.count(b"data: ") == 3
        assert (await post(engine, CHAT, **small))[0] == 200

    with_engine(scenario)


def test_slowdown_stall_late_abort_and_health_are_switched_live() -> None:
    async def scenario(engine: Served) -> None:
        assert await engine.control(stall=True, slowdown=1.5, healthy=False, abort_delay_s=0.01) == 200
        async with engine.http.get(engine.url + "/health") as answer:
            assert answer.status == 503
        job = asyncio.ensure_future(post(engine, CHAT, messages="x", max_tokens=3, ignore_eos=True))
        await engine.until("vllm:num_requests_waiting", 1)
        assert await engine.metric("simulated_steps_total") == 0
        assert await engine.control(stall=False, healthy=True) == 200
        assert (await job)[0] == 200
        async with engine.http.get(engine.url + "/health") as answer:
            assert answer.status == 200
        async with engine.http.get(engine.url + "/sim/control") as answer:
            state = await answer.json()
        assert (state["running"], state["faults"]["slowdown"], state["faults"]["abort_delay_s"]) == (0, 1.5, 0.01)

    with_engine(scenario)


def test_a_http_1_0_client_gets_a_stream_without_chunks() -> None:
    async def scenario(engine: Served) -> None:
        reader, writer = await asyncio.open_connection(*engine.url.removeprefix("http://").split(":"))
        body = b'{"prompt": "x", "max_tokens": 2, "ignore_eos": true, "stream": true}'
        writer.write(b"POST /v1/completions HTTP/1.0\r\ncontent-length: %d\r\n\r\n" % len(body) + body)
        head, _, events = (await reader.read()).partition(b"\r\n\r\n")
        writer.close()
        assert b"chunked" not in head.lower()
        assert [parse(event[6:])["choices"][0]["text"] for event in events.split(b"\n\n")[:2]] == ["This ", "text "]
        assert events.endswith(b"data: [DONE]\n\n")

    with_engine(scenario)
