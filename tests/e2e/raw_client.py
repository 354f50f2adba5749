"""A client that sends and reads bytes, and requests to send."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tests.e2e.scripted_upstream import HOST, LONGEST_WAIT_S, RST_ON_CLOSE

CHAT = "/v1/chat/completions"


@dataclass
class Answer:
    """`complete` False: the connection ended before the framing said so."""

    status: int
    headers: dict[str, str]
    body: bytes
    complete: bool
    interim: tuple[int, ...] = ()

    @property
    def error(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.body)["error"]
        return found


class RawClient:
    """A client that sends what it is told and reads what there is."""

    def __init__(self, port: int, receive_bytes: int = 0) -> None:
        self.socket = socket.socket()
        if receive_bytes:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        self.socket.settimeout(LONGEST_WAIT_S)
        try:
            self.socket.connect((HOST, port))
        except OSError:
            self.socket.close()
            raise
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.rest = b""

    def __enter__(self) -> RawClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send(self, *pieces: bytes) -> RawClient:
        for piece in pieces:
            self.socket.sendall(piece)
        return self

    def half_close(self) -> None:
        self.socket.shutdown(socket.SHUT_WR)

    def reset(self) -> None:
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RST_ON_CLOSE)
        self.socket.close()

    def receive(self) -> bytes:
        """Some bytes; b'' at the end, however it came."""
        try:
            return self.socket.recv(65536)
        except ConnectionError:
            return b""

    def read_until(self, mark: bytes) -> bytes:
        while mark not in self.rest:
            piece = self.receive()
            assert piece, f"ended before {mark!r}: {self.rest[-500:]!r}"
            self.rest += piece
        return self.rest

    def closed(self) -> bool:
        """True when the proxy ends the connection within the longest wait, with nothing more sent."""
        return self.rest == b"" and self.receive() == b""

    def answer(self, head_only: bool = False) -> Answer:
        interim: list[int] = []
        while True:
            self.read_until(b"\r\n\r\n")
            head, _, self.rest = self.rest.partition(b"\r\n\r\n")
            first, *lines = head.decode("latin-1").split("\r\n")
            status = int(first.split(" ")[1])
            headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
            if status >= 200:
                break
            interim.append(status)
        if head_only or status in (204, 304):
            return Answer(status, headers, b"", True, tuple(interim))
        body, complete = self._body(headers)
        return Answer(status, headers, body, complete, tuple(interim))

    def _body(self, headers: Mapping[str, str]) -> tuple[bytes, bool]:
        if "content-length" in headers:
            length = int(headers["content-length"])
            whole = self._fill_to(length)
            body, self.rest = self.rest[:length], self.rest[length:]
            return body, whole
        if headers.get("transfer-encoding") != "chunked":
            self._fill(lambda: False)
            body, self.rest = self.rest, b""
            return body, True
        body = b""
        while True:
            if not self._fill(lambda: b"\r\n" in self.rest):
                return body, False
            size = int(self.rest.split(b"\r\n", 1)[0], 16)
            start = self.rest.index(b"\r\n") + 2
            if not self._fill_to(start + size + 2):
                return body + self.rest[start:], False
            body += self.rest[start : start + size]
            self.rest = self.rest[start + size + 2 :]
            if not size:
                return body, True

    def _fill_to(self, size: int) -> bool:
        return self._fill(lambda: len(self.rest) >= size)

    def _fill(self, enough: Callable[[], bool]) -> bool:
        while not enough():
            if not (piece := self.receive()):
                return False
            self.rest += piece
        return True


def post(body: object, path: str = CHAT, headers: Sequence[str] = ()) -> bytes:
    """A whole request; `body` is bytes, or is written as JSON."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    lines = [f"POST {path} HTTP/1.1", "Host: proxy", "Content-Type: application/json", *headers]
    return "\r\n".join([*lines, f"Content-Length: {len(content)}", "", ""]).encode("latin-1") + content


def chat(model: str = "m", **more: object) -> dict[str, object]:
    return {"model": model, "messages": [{"role": "user", "content": "hello"}], **more}


def bare(first_line: str, *lines: str, host: str = "Host: proxy") -> bytes:
    return "\r\n".join([first_line, *([host] if host else []), *lines, "", ""]).encode("latin-1")


def is_refusal(found: Answer, status: int, code: str) -> None:
    """The shape of every refusal."""
    assert (found.status, found.error["code"]) == (status, code), found
    assert set(found.error) >= {"message", "type", "param", "code"}
    message = found.error["message"]
    assert 0 < len(message) <= 300
    assert message.isprintable()
    assert found.headers["content-type"].startswith("application/json")
    assert found.headers["x-request-id"]
    assert found.headers["x-penstock-reason"]
    assert found.complete
