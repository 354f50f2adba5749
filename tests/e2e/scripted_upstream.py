"""An upstream on loopback that does with bytes and connections exactly what a script says, and keeps what it got."""

from __future__ import annotations

import ctypes
import json
import select
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

HOST = "127.0.0.1"
LONGEST_WAIT_S = 10.0
RST_ON_CLOSE = struct.pack("ii", 1, 0)
SO_ATTACH_FILTER, SO_DETACH_FILTER = 26, 27  # <asm-generic/socket.h>
DROP_ALL = struct.pack("HBBI", 0x06, 0, 0, 0)  # one instruction of classic BPF: return 0 bytes of every packet


class Do(Enum):
    """A step of a script that is not bytes."""

    HOLD = "until the peer has gone or the test releases"
    CLOSE = "FIN"
    RESET = "RST"


@dataclass(frozen=True)
class Wait:
    seconds: float


Step = bytes | Do | Wait
Script = Sequence[Step]


def answer(body: bytes | str = b'{"ok":true}', status: int = 200, headers: str = "") -> bytes:
    content = body.encode() if isinstance(body, str) else body
    head = (
        f"HTTP/1.1 {status} Said\r\nContent-Type: application/json\r\nContent-Length: {len(content)}\r\n{headers}\r\n"
    )
    return head.encode() + content


STREAM_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
LAST_CHUNK = b"0\r\n\r\n"
DONE = b"data: [DONE]\n\n"


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def token(text: str = "a", finish: str | None = None) -> bytes:
    choice = {"index": 0, "delta": {"content": text}, "finish_reason": finish}
    return b"data: " + json.dumps({"choices": [choice]}).encode() + b"\n\n"


def whole_stream(*events: bytes) -> bytes:
    parts = events or (token(), token(finish="stop"), DONE)
    return STREAM_HEAD + b"".join(map(chunk, parts)) + LAST_CHUNK


def wait_for(what: Callable[[], Any], message: str, timeout_s: float = LONGEST_WAIT_S) -> Any:
    """Poll until `what()` is true; answers with it."""
    until_s = time.monotonic() + timeout_s
    while not (found := what()):
        if time.monotonic() > until_s:
            raise AssertionError(f"{message}: not within {timeout_s} s")
        time.sleep(0.005)
    return found


@dataclass(eq=False)
class Call:
    """One request as an upstream received it. `gone_s`: when the connection ended (FIN or RST), monotonic."""

    connection: int
    head: str
    body: bytes
    at_s: float
    reused: bool  # not the first request of its connection
    gone_s: float = 0.0

    def wait_gone(self, timeout_s: float = 2.0) -> float:
        wait_for(lambda: self.gone_s, "the upstream connection should end", timeout_s)
        return self.gone_s


def drop_all(one: socket.socket) -> None:
    """Nothing reaches this socket any more, and nothing is acknowledged."""
    program = ctypes.create_string_buffer(DROP_ALL)
    one.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, struct.pack("HL", 1, ctypes.addressof(program)))


@dataclass
class ScriptedUpstream:
    """Answers each POST by `script` (or the next of `scripts`), each GET by `pages`. Threads, blocking sockets."""

    script: Script = (answer(),)
    scripts: list[Script] = field(default_factory=list)
    pages: dict[str, bytes] = field(default_factory=dict)
    models: tuple[str, ...] = ("m",)
    tls: ssl.SSLContext | None = None
    backlog: int = 128
    host: str = HOST
    port: int = 0  # any free one
    calls: list[Call] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)  # paths of GETs
    connections: int = 0
    early: Script = ()  # performed as soon as the head of a POST has come, before its body
    idle_s: float | None = None  # closes a connection that has been idle for so long

    def __post_init__(self) -> None:
        self.release = threading.Event()
        self._closed = self._vanished = False
        self._fillers: list[socket.socket] = []
        self._peers: set[socket.socket] = set()
        self.list_models(*self.models)
        family = socket.AF_INET6 if ":" in self.host else socket.AF_INET
        self._listener = socket.create_server((self.host, self.port), family=family, backlog=self.backlog)
        self.port = self._listener.getsockname()[1]
        self._acceptor = self._start(self._accept)

    @property
    def url(self) -> str:
        return f"{'https' if self.tls else 'http'}://{'localhost' if self.tls else HOST}:{self.port}"

    def list_models(self, *models: str) -> None:
        self.pages["/v1/models"] = answer(json.dumps({"object": "list", "data": [{"id": name} for name in models]}))

    def reset(self, *steps: Step) -> None:
        """Begin a new case: its script, no calls, nothing released."""
        self.script, self.scripts, self.calls = steps or (answer(),), [], []
        self.release = threading.Event()

    def wait_calls(self, count: int) -> Call:
        wait_for(lambda: len(self.calls) >= count, f"{count} calls at the upstream")
        return self.calls[count - 1]

    def stall(self) -> None:
        """From now on nothing is accepted, and the kernel's queue of connections is full: a SYN gets no answer."""
        self._closed = True
        with socket.create_connection((HOST, self.port)):  # wakes the accepting thread, which then ends
            self._acceptor.join()
        for _ in range(self.backlog + 3):
            filler = socket.socket()
            filler.setblocking(False)
            filler.connect_ex((HOST, self.port))
            self._fillers.append(filler)

    def close(self) -> None:
        """Let go of all that is still open here."""
        self.release.set()
        self.refuse()
        for filler in self._fillers:
            filler.close()

    def vanish(self) -> None:
        """As a host that has lost its power: what comes in is dropped, unacknowledged, and nothing goes out."""
        self._vanished = True
        for one in (self._listener, *tuple(self._peers)):
            drop_all(one)

    def return_to_life(self) -> None:
        self._vanished = False
        self._listener.setsockopt(socket.SOL_SOCKET, SO_DETACH_FILTER, 0)

    def refuse(self) -> None:
        """From now on connections to the port are refused."""
        self._closed = True
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _start(self, work: Callable[..., None], *arguments: object) -> threading.Thread:
        thread = threading.Thread(target=work, args=arguments, daemon=True)
        thread.start()
        return thread

    def _accept(self) -> None:
        while not self._closed:
            try:
                peer, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            self._start(self._serve, peer, self.connections)

    def _serve(self, peer: socket.socket, number: int) -> None:
        call: Call | None = None
        with suppress(OSError), ExitStack() as stack:
            stack.enter_context(peer)
            if self.tls:
                peer = stack.enter_context(self.tls.wrap_socket(peer, server_side=True))
            peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            peer.settimeout(self.idle_s)
            self._peers.add(peer)
            if self._vanished:  # it was made before, and is accepted after
                drop_all(peer)
            while request := read_request(peer, lambda: bool(self.early)):
                path = request[0].split(" ", 2)[1]
                if request[0].startswith("GET"):
                    self.asked.append(path)
                    peer.sendall(self.pages.get(path, answer("{}", 404)))
                    continue
                if self.early:
                    self._perform(peer, self.early)
                    break
                call = Call(number, *request, time.monotonic(), reused=call is not None)
                self.calls.append(call)
                if not self._perform(peer, self.script_of(call)):
                    break
        self._peers.discard(peer)
        if call is not None:
            call.gone_s = time.monotonic()

    def script_of(self, call: Call) -> Script:
        return self.scripts.pop(0) if self.scripts else self.script

    def _perform(self, peer: socket.socket, script: Script) -> bool:
        """Run the steps; False when the connection is over."""
        release = self.release
        for step in script:
            if isinstance(step, bytes):
                peer.sendall(step)
            elif isinstance(step, Wait):
                time.sleep(step.seconds)
            elif step is Do.HOLD:
                if gone_before(peer, release):
                    return False
            else:
                if step is Do.RESET:
                    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RST_ON_CLOSE)
                return False
        return True


def gone_before(peer: socket.socket, release: threading.Event) -> bool:
    while not release.is_set():
        if select.select([peer], [], [], 0.005)[0] and not peer.recv(65536):
            return True
    return False


def read_request(peer: socket.socket, early: Callable[[], bool] = bool) -> tuple[str, bytes] | None:
    """Head and body as they came; a chunked body is left in its chunks, and is not waited for if the answer is `early`.
    None at the end."""
    data = bytearray()
    while b"\r\n\r\n" not in data:
        if not (piece := peer.recv(65536)):
            return None
        data += piece
    head, _, body = bytes(data).partition(b"\r\n\r\n")
    text = head.decode("latin-1")
    lines = dict(line.lower().split(": ", 1) for line in text.split("\r\n")[1:])
    length = 0 if early() else int(lines.get("content-length", 0))
    chunked = "transfer-encoding" in lines
    while len(body) < length or (chunked and not body.endswith(LAST_CHUNK)):
        if not (piece := peer.recv(65536)):
            return None
        body += piece
    return text, body
