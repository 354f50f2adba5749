from __future__ import annotations

import asyncio

from openai import AsyncStream
from openai.types import Completion
from openai.types.chat import ChatCompletionChunk, ChatCompletionMessageParam

from proxy.simulator.server.text import text_of
from tests.simulator.serving import served

PROMPT: list[ChatCompletionMessageParam] = [{"role": "user", "content": "x" * 40}]
EXACT = {"ignore_eos": True}


async def chunks(stream: AsyncStream[ChatCompletionChunk]) -> list[ChatCompletionChunk]:
    return [chunk async for chunk in stream]


def test_chat_whole_and_streamed_tell_the_same() -> None:
    async def scenario() -> None:
        async with served() as engine:
            create = engine.sdk.chat.completions.create
            whole = await create(model="m", messages=PROMPT, max_tokens=12, n=2, extra_body=EXACT)
            assert [choice.message.content for choice in whole.choices] == [text_of(12)] * 2
            assert [choice.finish_reason for choice in whole.choices] == ["length"] * 2
            assert whole.usage is not None
            assert (whole.usage.prompt_tokens, whole.usage.completion_tokens) == (10, 24)
            stream = await create(
                model="m", messages=PROMPT, max_tokens=12, n=2, stream=True, extra_body=EXACT,
                stream_options={"include_usage": True},
            )  # fmt: skip
            got = await chunks(stream)
            assert [chunk.usage is None for chunk in got] == [True] * (len(got) - 1) + [False]
            assert got[-1].choices == [] and got[-1].usage is not None
            assert got[-1].usage.total_tokens == 34
            for index in (0, 1):
                mine = [chunk.choices[0] for chunk in got[:-1] if chunk.choices[0].index == index]
                assert "".join(choice.delta.content or "" for choice in mine) == text_of(12)
                assert mine[0].delta.role == "assistant" and len(mine) == 13
                assert [choice.finish_reason for choice in mine] == [None] * 12 + ["length"]

    asyncio.run(scenario())


def test_completions_whole_and_streamed_with_several_prompts() -> None:
    async def scenario() -> None:
        async with served() as engine:
            whole = await engine.sdk.completions.create(model="m", prompt=["a", "b"], extra_body=EXACT)
            assert [choice.text for choice in whole.choices] == [text_of(16)] * 2
            assert whole.usage is not None and whole.usage.prompt_tokens == 2
            stream = await engine.sdk.completions.create(model="m", prompt="a", max_tokens=1, stream=True)
            got: list[Completion] = [chunk async for chunk in stream]
            assert [(chunk.choices[0].text, chunk.choices[0].finish_reason) for chunk in got] == [("This ", "length")]

    asyncio.run(scenario())


def test_the_bytes_of_a_stream() -> None:
    async def scenario() -> bytes:
        async with served() as engine:
            body = {"messages": PROMPT, "max_tokens": 2, "stream": True, "ignore_eos": True}
            async with engine.http.post(engine.url + "/v1/chat/completions", json=body) as answer:
                assert answer.headers["content-type"].startswith("text/event-stream")
                assert answer.headers["server"] == "penstock-simulator"
                return await answer.read()

    events = asyncio.run(scenario()).split(b"\n\n")
    assert len(events) == 5 and events[3:] == [b"data: [DONE]", b""]
    assert all(event.startswith(b'data: {"id":"chatcmpl-sim1"') and b"usage" not in event for event in events[:3])
