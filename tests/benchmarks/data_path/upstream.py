"""An upstream that costs little: python -m tests.benchmarks.data_path.upstream PORT

Answers any POST at once with a 1 kB completion, and one whose body holds `"stream": true` with events at a steady
rate, each stamped with the time of its sending (monotonic nanoseconds), as an engine of many seats would. The stamp is
the text of the event: proxies that write an event anew keep that and drop keys that they do not know.
"""

from __future__ import annotations

import asyncio
import sys
import time
from typing import cast

import uvloop

EVENTS = 200
GAP_S = 0.02
BODY = (
    b'{"id":"c","object":"chat.completion","created":1,"model":"m","choices":[{"index":0,"finish_reason":"stop",'
    b'"message":{"role":"assistant","content":"' + b"word " * 140 + b'"}}],'
    b'"usage":{"prompt_tokens":256,"completion_tokens":140,"total_tokens":396}}'
)
ANSWER = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (len(BODY), BODY)
STREAM_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
STAMP = b"sent:"
EVENT = b'data: {"choices":[{"index":0,"delta":{"content":"' + STAMP + b'%020d "},"finish_reason":%b}]}\n\n'
DONE = b'data: {"choices":[],"usage":{"prompt_tokens":256,"completion_tokens":%d}}\n\ndata: [DONE]\n\n' % EVENTS


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


class Upstream(asyncio.Protocol):
    """Trusts what comes: whole requests with a content-length, one at a time."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.buffer = bytearray()

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        head_end = self.buffer.find(b"\r\n\r\n")
        if head_end < 0:
            return
        head = bytes(self.buffer[:head_end]).lower()
        length = int(head.partition(b"content-length:")[2].partition(b"\r\n")[0] or 0)
        if len(self.buffer) < head_end + 4 + length:
            return
        streaming = b'"stream": true' in self.buffer or b'"stream":true' in self.buffer  # routers write it anew
        self.buffer.clear()
        if streaming:
            self.transport.write(STREAM_HEAD)
            self.events = 0
            self.due = asyncio.get_running_loop().time()
            self.stream()
        else:
            self.transport.write(ANSWER)

    def stream(self) -> None:
        if self.transport.is_closing():
            return
        self.events += 1
        last = self.events == EVENTS
        self.transport.write(chunk(EVENT % (time.monotonic_ns(), b'"stop"' if last else b"null")))
        if last:
            self.transport.write(chunk(DONE) + b"0\r\n\r\n")
            return
        self.due += GAP_S
        asyncio.get_running_loop().call_at(self.due, self.stream)


async def serve(port: int) -> None:
    server = await asyncio.get_running_loop().create_server(Upstream, "127.0.0.1", port, backlog=4096)
    print("ready", flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1])))
