"""Answers of the chat and legacy completion routes, whole and streamed, in the shapes of OpenAI's API reference.

A stream is one `data:` event per token, then the usage event if asked for (all others then carry `usage: null`), then
`data: [DONE]`. The last token's event carries the finish reason.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

import orjson

from proxy.simulator.server.bodies import Asked
from proxy.simulator.server.streams import FrameStream
from proxy.simulator.server.text import WORDS, framed, text_of, word

DONE = b"data: [DONE]\n\n"


@dataclass(frozen=True, slots=True)
class Identity:
    """What every event of one answer repeats."""

    number: int
    model: str
    created: int


def data_event(value: object) -> bytes:
    return b"data: " + orjson.dumps(value) + b"\n\n"


def usage(asked: Asked) -> dict[str, int]:
    return {
        "prompt_tokens": asked.prompt_tokens,
        "completion_tokens": asked.output_tokens,
        "total_tokens": asked.prompt_tokens + asked.output_tokens,
    }


class ChatAnswer:
    """Shapes of /v1/chat/completions."""

    prefix = "chatcmpl"
    whole_object = "chat.completion"
    event_object = "chat.completion.chunk"
    content_type = "text/event-stream; charset=utf-8"

    def __init__(self, asked: Asked, identity: Identity) -> None:
        self.asked = asked
        self.identity = identity

    def preamble(self) -> bytes:
        return b""

    def stream(self, index: int, transport: asyncio.Transport, chunked: bool) -> FrameStream:
        piece = self.asked.pieces[index]
        frames = [framed(self.event([self.part(index, one, None)]), chunked) for one in WORDS]
        last = self.event([self.part(index, word(piece.output_tokens - 1), piece.reason)])
        opening = self.opening(index)
        return FrameStream(transport, framed(opening, chunked) if opening else b"", frames, framed(last, chunked))

    def closing(self) -> bytes:
        return (self.event([], usage(self.asked)) if self.asked.include_usage else b"") + DONE

    def whole(self) -> dict[str, Any]:
        choices = [
            self.choice(index, text_of(piece.output_tokens), piece.reason)
            for index, piece in enumerate(self.asked.pieces)
        ]
        return self.head(self.whole_object) | {"choices": choices, "usage": usage(self.asked)}

    def head(self, kind: str) -> dict[str, Any]:
        one = self.identity
        return {"id": f"{self.prefix}-sim{one.number}", "object": kind, "created": one.created, "model": one.model}

    def event(self, choices: list[dict[str, Any]], used: dict[str, int] | None = None) -> bytes:
        value = self.head(self.event_object) | {"choices": choices}
        return data_event(value | {"usage": used} if self.asked.include_usage else value)

    def opening(self, index: int) -> bytes:
        delta = {"role": "assistant", "content": ""}
        return self.event([{"index": index, "delta": delta, "logprobs": None, "finish_reason": None}])

    def part(self, index: int, text: str, reason: str | None) -> dict[str, Any]:
        return {"index": index, "delta": {"content": text}, "logprobs": None, "finish_reason": reason}

    def choice(self, index: int, text: str, reason: str) -> dict[str, Any]:
        message = {"role": "assistant", "content": text, "refusal": None}
        return {"index": index, "message": message, "logprobs": None, "finish_reason": reason}


class CompletionAnswer(ChatAnswer):
    """Shapes of /v1/completions."""

    prefix = "cmpl"
    whole_object = event_object = "text_completion"

    def opening(self, index: int) -> bytes:
        return b""

    def part(self, index: int, text: str, reason: str | None) -> dict[str, Any]:
        return {"index": index, "text": text, "logprobs": None, "finish_reason": reason}

    def choice(self, index: int, text: str, reason: str) -> dict[str, Any]:
        return self.part(index, text, reason)
