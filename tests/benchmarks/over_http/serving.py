"""The engine behind HTTP: streamed chat completions and, as vLLM names them, its figures. A step begins when the last
one should have ended, so that what the process does besides costs the engine nothing over time."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any, cast

from tests.benchmarks.over_http.engine import Engine, Sequence

STREAM = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
EVENT = (
    b'data: {"id":"e","object":"chat.completion.chunk",'
    b'"choices":[{"index":0,"delta":{"content":"x"},"finish_reason":%b}]}\n\n'
)
END = (
    b'data: {"id":"e","object":"chat.completion.chunk","choices":[],"usage":'
    b'{"prompt_tokens":%d,"completion_tokens":%d,"total_tokens":%d}}\n\ndata: [DONE]\n\n'
)
MODELS = b'{"object":"list","data":[{"id":"m","object":"model","max_model_len":65536}]}'
BLOCK = 16
SAMPLE_S = 0.25


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


class Serving:
    """Steps on the loop's clock. `moments` holds how many were in the engine, every quarter of a second."""

    def __init__(self, engine: Engine, clock: Callable[[], float]) -> None:
        self.engine, self.clock = engine, clock
        self.streams: dict[Sequence, Face] = {}
        self.ended: dict[int, Sequence] = {}
        self.moments: list[tuple[float, int]] = []
        self._due_s = 0.0
        self._stepping = False

    def admit(self, sequence: Sequence, face: Face) -> None:
        self.streams[sequence] = face
        self.engine.waiting.append(sequence)
        if not self._stepping:
            self._due_s = self.clock()
            self._begin()

    def leave(self, sequence: Sequence) -> None:
        if self.streams.pop(sequence, None) is not None:
            self.engine.drop(sequence)

    def _begin(self) -> None:
        step_s = self.engine.begin()
        self._stepping = step_s > 0
        if self._stepping:
            self._due_s += step_s
            loop = asyncio.get_running_loop()
            loop.call_later(max(0.0, self._due_s - self.clock()), self._end)

    def _end(self) -> None:
        for sequence in self.engine.finish(self._due_s):
            face = self.streams.get(sequence)
            if face is None:
                continue
            if sequence.ended_s:
                del self.streams[sequence]
                self.ended[sequence.number] = sequence
            face.tell(sequence)
        self._begin()

    async def watch(self) -> None:
        while True:
            self.moments.append((self.clock(), self.engine.present))
            await asyncio.sleep(SAMPLE_S)

    def figures(self) -> bytes:
        engine = self.engine
        lines = (
            f'vllm:cache_config_info{{block_size="{BLOCK}",num_gpu_blocks="{engine.kind.cache_tokens // BLOCK}"}} 1',
            f"vllm:num_requests_running {len(engine.running)}",
            f"vllm:num_requests_waiting {len(engine.waiting)}",
            f"vllm:kv_cache_usage_perc {engine.cache_use:.6f}",
            f"vllm:num_preemptions_total {engine.preemptions}",
        )
        return ("\n".join(lines) + "\n").encode()


class Face(asyncio.Protocol):
    """One connection. Trusts what comes: whole requests, one at a time, each with its length."""

    def __init__(self, serving: Serving) -> None:
        self.serving, self.buffer = serving, bytearray()
        self.sequence: Sequence | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        if self.sequence is not None:
            self.serving.leave(self.sequence)

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        head, mark, body = bytes(self.buffer).partition(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0] or 0)
        if not mark or len(body) < length:
            return
        self.buffer.clear()
        if head.startswith(b"POST"):
            self._complete(json.loads(body))
        else:
            answer = self.serving.figures() if head.startswith(b"GET /metrics") else MODELS
            kind = b"text/plain" if head.startswith(b"GET /metrics") else b"application/json"
            lines = b"HTTP/1.1 200 OK\r\ncontent-type: %b\r\ncontent-length: %d\r\n\r\n%b"
            self.transport.write(lines % (kind, len(answer), answer))

    def _complete(self, body: dict[str, Any]) -> None:
        asked = body["metadata"]
        self.sequence = Sequence(asked["number"], asked["prompt"], asked["output"], self.serving.clock())
        self.transport.write(STREAM)
        self.serving.admit(self.sequence, self)

    def tell(self, sequence: Sequence) -> None:
        """The token that it has just got."""
        last = sequence.made == sequence.output
        self.transport.write(chunk(EVENT % (b'"stop"' if last else b"null")))
        if last:
            self.sequence = None
            made, prompt = sequence.made, sequence.prompt
            self.transport.write(chunk(END % (prompt, made, prompt + made)) + b"0\r\n\r\n")
