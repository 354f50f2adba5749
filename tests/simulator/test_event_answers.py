from __future__ import annotations

import asyncio
from typing import Any

import orjson

from proxy.simulator.server.text import text_of
from tests.simulator.serving import served


def test_responses_whole_and_streamed() -> None:
    async def scenario() -> None:
        async with served() as engine:
            responses = engine.sdk.responses
            whole = await responses.create(model="m", input="x" * 40, instructions="y" * 4, max_output_tokens=500)
            assert whole.status == "completed" and whole.usage is not None
            assert whole.usage.input_tokens == 11 and whole.output_text == text_of(whole.usage.output_tokens)
            cut = await responses.create(model="m", input="x", max_output_tokens=1)
            assert cut.status == "incomplete" and cut.incomplete_details is not None
            assert cut.incomplete_details.reason == "max_output_tokens"
            stream = await responses.create(model="m", input="x", max_output_tokens=30, stream=True)
            events = [event async for event in stream]
            assert [event.sequence_number for event in events] == list(range(len(events)))
            assert [event.type for event in events[:4]] == [
                "response.created", "response.in_progress", "response.output_item.added", "response.content_part.added",
            ]  # fmt: skip
            final = events[-1]
            assert final.type == "response.completed" and final.response.usage is not None
            text = "".join(event.delta for event in events if event.type == "response.output_text.delta")
            assert text == final.response.output_text == text_of(final.response.usage.output_tokens)

    asyncio.run(scenario())


def test_messages_whole_streamed_and_refused() -> None:
    async def scenario() -> None:
        async with served() as engine:

            async def ask(**body: Any) -> tuple[int, bytes]:
                asked = {"model": "m", "messages": [{"role": "user", "content": "x" * 40}], "max_tokens": 3, **body}
                async with engine.http.post(engine.url + "/v1/messages", json=asked) as answer:
                    return answer.status, await answer.read()

            status, body = await ask(ignore_eos=True, system="y" * 8)
            whole = orjson.loads(body)
            assert (status, whole["stop_reason"], whole["content"][0]["text"]) == (200, "max_tokens", text_of(3))
            assert whole["usage"] == {"input_tokens": 12, "output_tokens": 3}
            assert orjson.loads((await ask(max_tokens=900))[1])["stop_reason"] == "end_turn"
            _, body = await ask(ignore_eos=True, stream=True)
            events = [orjson.loads(line[6:]) for line in body.splitlines() if line.startswith(b"data: ")]
            assert [event["type"] for event in events] == [
                "message_start", "content_block_start", *["content_block_delta"] * 3,
                "content_block_stop", "message_delta", "message_stop",
            ]  # fmt: skip
            assert "".join(event["delta"]["text"] for event in events[2:5]) == text_of(3)
            assert events[6]["usage"]["output_tokens"] == 3
            status, body = await ask(model="other")
            assert (status, orjson.loads(body)["error"]["type"]) == (404, "not_found_error")

    asyncio.run(scenario())


def test_speech_is_silence_as_wav() -> None:
    async def scenario() -> None:
        async with served() as engine:
            speech = await engine.sdk.audio.speech.create(
                model="m", input="x" * 400, voice="alloy", extra_body={"seed": 3, "min_tokens": 2}
            )
            sound = speech.content
            assert sound[:4] + sound[8:12] == b"RIFFWAVE" and (len(sound) - 44) % 1920 == 0
            assert len(sound) >= 44 + 2 * 1920 and not any(sound[44:])

    asyncio.run(scenario())
