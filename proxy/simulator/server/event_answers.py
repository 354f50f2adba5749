"""Answers made of named events: OpenAI's /v1/responses and Anthropic's /v1/messages, and speech made of samples.

Responses events carry a running `sequence_number`; the last is `response.completed` whatever the finish reason, as in
vLLM. Messages events follow Anthropic's streaming reference.
"""

from __future__ import annotations

import asyncio
import struct
from typing import Any

import orjson

from proxy.simulator.server.bodies import Asked
from proxy.simulator.server.openai_answers import Identity
from proxy.simulator.server.streams import FrameStream, NumberedStream
from proxy.simulator.server.text import WORDS, framed, text_of, word


def named_event(value: dict[str, Any]) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (value["type"].encode(), orjson.dumps(value))


class ResponsesAnswer:
    """Shapes of /v1/responses."""

    content_type = "text/event-stream; charset=utf-8"

    def __init__(self, asked: Asked, identity: Identity) -> None:
        self.asked = asked
        self.identity = identity
        (self.piece,) = asked.pieces
        self.place = {"item_id": f"msg_sim{identity.number}", "output_index": 0, "content_index": 0}

    def preamble(self) -> bytes:
        item: dict[str, Any] = {
            "type": "response.output_item.added",
            "output_index": 0,
            "item": self.item("in_progress", None),
        }
        part: dict[str, Any] = {"type": "response.content_part.added", **self.place, "part": self.part("")}
        started: list[dict[str, Any]] = [
            {"type": f"response.{name}", "response": self.response(False)} for name in ("created", "in_progress")
        ]
        return self.numbered([*started, item, part], 0)

    def stream(self, index: int, transport: asyncio.Transport, chunked: bool) -> NumberedStream:
        halves = [self.delta(one, -1).split(b"-1") for one in WORDS]

        def event(word_index: int, number: int) -> bytes:
            head, tail = halves[word_index]
            return b"%b%d%b" % (head, number, tail)

        tokens = self.piece.output_tokens
        last = self.delta(word(tokens - 1), 3 + tokens)
        return NumberedStream(transport, event, 4, framed(last, chunked), chunked)

    def closing(self) -> bytes:
        text = text_of(self.piece.output_tokens)
        events: list[dict[str, Any]] = [
            {"type": "response.output_text.done", **self.place, "text": text, "logprobs": []},
            {"type": "response.content_part.done", **self.place, "part": self.part(text)},
            {"type": "response.output_item.done", "output_index": 0, "item": self.item("completed", text)},
            {"type": "response.completed", "response": self.response(True)},
        ]
        return self.numbered(events, 4 + self.piece.output_tokens)

    def whole(self) -> dict[str, Any]:
        return self.response(True)

    def numbered(self, events: list[dict[str, Any]], first: int) -> bytes:
        return b"".join(named_event(event | {"sequence_number": first + at}) for at, event in enumerate(events))

    def delta(self, text: str, number: int) -> bytes:
        kind = "response.output_text.delta"
        return named_event({"type": kind, **self.place, "delta": text, "logprobs": [], "sequence_number": number})

    def part(self, text: str) -> dict[str, Any]:
        return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}

    def item(self, status: str, text: str | None) -> dict[str, Any]:
        content = [] if text is None else [self.part(text)]
        return {
            "id": self.place["item_id"],
            "type": "message",
            "status": status,
            "role": "assistant",
            "content": content,
        }

    def response(self, ended: bool) -> dict[str, Any]:
        asked, full = self.asked, self.piece.reason == "length"
        used = {
            "input_tokens": asked.prompt_tokens,
            "input_tokens_details": {"cached_tokens": 0},
            "output_tokens": asked.output_tokens,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": asked.prompt_tokens + asked.output_tokens,
        }
        status = ("incomplete" if full else "completed") if ended else "in_progress"
        return {
            "id": f"resp_sim{self.identity.number}",
            "object": "response",
            "created_at": self.identity.created,
            "status": status,
            "error": None,
            "incomplete_details": {"reason": "max_output_tokens"} if ended and full else None,
            "model": self.identity.model,
            "output": [self.item(status, text_of(asked.output_tokens))] if ended else [],
            "parallel_tool_calls": True,
            "tool_choice": "auto",
            "tools": [],
            "usage": used if ended else None,
        }


class MessagesAnswer:
    """Shapes of Anthropic's /v1/messages."""

    content_type = "text/event-stream; charset=utf-8"

    def __init__(self, asked: Asked, identity: Identity) -> None:
        self.asked = asked
        self.identity = identity
        (piece,) = asked.pieces
        self.reason = "max_tokens" if piece.reason == "length" else "end_turn"

    def preamble(self) -> bytes:
        started = self.message([], None, {"input_tokens": self.asked.prompt_tokens, "output_tokens": 0})
        block = {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}
        return named_event({"type": "message_start", "message": started}) + named_event(block)

    def stream(self, index: int, transport: asyncio.Transport, chunked: bool) -> FrameStream:
        frames = [framed(self.delta(one), chunked) for one in WORDS]
        last = self.delta(word(self.asked.output_tokens - 1))
        return FrameStream(transport, b"", frames, framed(last, chunked))

    def closing(self) -> bytes:
        ending = {"stop_reason": self.reason, "stop_sequence": None}
        used = {"input_tokens": self.asked.prompt_tokens, "output_tokens": self.asked.output_tokens}
        return (
            named_event({"type": "content_block_stop", "index": 0})
            + named_event({"type": "message_delta", "delta": ending, "usage": used})
            + named_event({"type": "message_stop"})
        )

    def whole(self) -> dict[str, Any]:
        used = {"input_tokens": self.asked.prompt_tokens, "output_tokens": self.asked.output_tokens}
        return self.message([{"type": "text", "text": text_of(self.asked.output_tokens)}], self.reason, used)

    def message(self, content: list[dict[str, str]], reason: str | None, used: dict[str, int]) -> dict[str, Any]:
        return {
            "id": f"msg_sim{self.identity.number}",
            "type": "message",
            "role": "assistant",
            "model": self.identity.model,
            "content": content,
            "stop_reason": reason,
            "stop_sequence": None,
            "usage": used,
        }

    def delta(self, text: str) -> bytes:
        delta = {"type": "text_delta", "text": text}
        return named_event({"type": "content_block_delta", "index": 0, "delta": delta})


class SpeechAnswer:
    """Silence as WAV: 24 kHz, mono, 16 bit, 40 ms per token. The header leaves its sizes open, as streams do."""

    content_type = "audio/wav"
    samples = bytes(1920)

    def __init__(self, asked: Asked, identity: Identity) -> None:
        self.asked = asked

    def preamble(self) -> bytes:
        form = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, 1, 24_000, 48_000, 2, 16)
        return b"RIFF\xff\xff\xff\xffWAVE" + form + b"data\xff\xff\xff\xff"

    def stream(self, index: int, transport: asyncio.Transport, chunked: bool) -> FrameStream:
        frame = framed(self.samples, chunked)
        return FrameStream(transport, b"", [frame] * len(WORDS), frame)

    def closing(self) -> bytes:
        return b""
