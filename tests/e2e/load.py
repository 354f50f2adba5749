"""Clients that ask one request after the other, each with an id of its own, and keep what became of it."""

from __future__ import annotations

import itertools
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

from tests.e2e.raw_client import Answer, RawClient, chat, post
from tests.e2e.scripted_upstream import wait_for


@dataclass(frozen=True)
class Ending:
    """`status` 0: no answer came. `whole`: nothing was cut off, and a stream has its end mark."""

    request_id: str
    status: int
    whole: bool
    code: str = ""
    at_s: float = 0.0

    @property
    def good(self) -> bool:
        return self.status == 200 and self.whole


class Load:
    """`workers` threads, half of them asking for streams. Connections are kept unless `fresh`.

    A connection that was refused or reset, and a kept one that ended before a byte of an answer, are tried once more,
    as HTTP clients do: the kernel resets a handshake that is under way when a listening socket closes. Those tries are
    counted in `reconnects`.
    """

    def __init__(self, port: int, workers: int = 6, fresh: bool = False, pause_s: float = 0.002) -> None:
        self.port, self.fresh, self.pause_s = port, fresh, pause_s
        self.endings: list[Ending] = []
        self.reconnects = 0
        self._stopped = threading.Event()
        self._threads = [threading.Thread(target=self._work, args=(n,), daemon=True) for n in range(workers)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        for thread in self._threads:
            thread.join(15)
            assert not thread.is_alive(), "a request that never ends"

    def wait_more(self, count: int, what: Callable[[Ending], bool] = lambda ending: ending.good) -> None:
        """Until `count` further requests have ended like this."""
        start = len(self.endings)
        wait_for(lambda: sum(map(what, self.endings[start:])) >= count, f"{count} more, have {self.tally()}")

    def tally(self) -> Counter[tuple[int, bool, str]]:
        return Counter((one.status, one.whole, one.code) for one in self.endings)

    def bad(self) -> list[Ending]:
        return [one for one in self.endings if not one.good]

    def _work(self, number: int) -> None:
        client: RawClient | None = None
        for turn in itertools.count():
            if self._stopped.is_set():
                break
            request_id = f"w{number}-{turn}"
            request = post(chat(stream=number % 2 == 0), headers=[f"x-request-id: {request_id}"])
            ending, client = self._ask(client, request_id, request)
            self.endings.append(ending)
            if client is not None and self.fresh:
                client.socket.close()
                client = None
            time.sleep(self.pause_s)
        if client is not None:
            client.socket.close()

    def _ask(self, client: RawClient | None, request_id: str, request: bytes) -> tuple[Ending, RawClient | None]:
        for _ in range(2):
            reused = client is not None
            try:
                client = client or RawClient(self.port)
                began = client.send(request).receive()
            except ConnectionError as error:
                began, refused = b"", isinstance(error, ConnectionRefusedError | ConnectionResetError)
            else:
                refused = False
            if began:
                assert client is not None
                return self._read(client, request_id, began)
            if client is not None:
                client.socket.close()
            client = None
            if not (refused or reused):
                break
            self.reconnects += 1
        return Ending(request_id, 0, False, "no answer", time.monotonic()), None

    def _read(self, client: RawClient, request_id: str, began: bytes) -> tuple[Ending, RawClient | None]:
        client.rest += began
        try:
            found = client.answer()
        except (AssertionError, OSError) as error:
            client.socket.close()
            return Ending(request_id, 0, False, type(error).__name__, time.monotonic()), None
        if found.headers.get("connection") == "close" or not found.complete:
            client.socket.close()
            return self._ending(request_id, found), None
        return self._ending(request_id, found), client

    def _ending(self, request_id: str, found: Answer) -> Ending:
        streamed = found.headers["content-type"] == "text/event-stream"
        whole = found.complete and (not streamed or found.body.endswith(b"data: [DONE]\n\n"))
        code = found.error["code"] if found.status != 200 else ""
        return Ending(request_id, found.status, whole, code, time.monotonic())


def can_connect(port: int) -> bool:
    with socket.socket() as one:
        return one.connect_ex(("127.0.0.1", port)) == 0
