from __future__ import annotations

import asyncio
import os
import signal
import socket
import threading
import urllib.request

import pytest
from aiohttp import web

from proxy.simulator.server import run
from proxy.simulator.server.app import create_app
from proxy.simulator.server.serve import listen
from tests.simulator.serving import PROFILE


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_announces_its_address_and_a_signal_ends_it(number: int) -> None:
    told: list[str] = []

    def announce(url: str) -> None:
        told.append(url)
        os.kill(os.getpid(), number)

    assert run("t4-7b-awq", "127.0.0.1", 0, speed=100.0, seed=1, announce=announce) == 0
    assert told[0].startswith("http://127.0.0.1:") and not told[0].endswith(":0")


def test_it_answers_until_its_parent_s_pipe_closes(monkeypatch: pytest.MonkeyPatch) -> None:
    reading, writing = os.pipe()
    statuses: list[int] = []

    def use(url: str) -> None:
        with urllib.request.urlopen(url + "/health", timeout=5) as answer:
            statuses.append(answer.status)
        os.close(writing)

    with os.fdopen(reading) as stdin:
        monkeypatch.setattr("sys.stdin", stdin)
        users: list[threading.Thread] = []

        def announce(url: str) -> None:
            users.append(threading.Thread(target=use, args=(url,)))
            users[0].start()

        assert run("t4-7b-awq", "127.0.0.1", 0, announce=announce, follow_stdin=True) == 0
        users[0].join()
    assert statuses == [200]


def test_a_taken_port_an_unknown_profile_and_a_wrong_speed_are_errors() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(OSError, match="address already in use"):
        run("t4-7b-awq", port=taken.getsockname()[1])
    with pytest.raises(ValueError, match="no engine profile"):
        run("t5")
    with pytest.raises(ValueError, match="speed must be positive"):
        run("t4-7b-awq", speed=0)


def test_an_ipv6_address_is_shown_in_brackets() -> None:
    async def scenario() -> str:
        runner, url = await listen(create_app(PROFILE), "::1", 0)
        await runner.cleanup()
        return url

    assert asyncio.run(scenario()).startswith("http://[::1]:")


def test_a_client_that_leaves_while_its_answer_is_written_is_no_fault(caplog: pytest.LogCaptureFixture) -> None:
    async def late(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        assert request.transport is not None
        request.transport.close()  # not yet told as lost
        await response.write(b"late")
        raise AssertionError("a closing connection takes nothing")

    async def scenario() -> bytes:
        app = create_app(PROFILE)
        app.router.add_get("/late", late)
        runner, url = await listen(app, "127.0.0.1", 0)
        reader, writer = await asyncio.open_connection("127.0.0.1", int(url.rpartition(":")[2]))
        writer.write(b"GET /late HTTP/1.1\r\nhost: x\r\n\r\n")
        answer = await reader.read()
        writer.close()
        await writer.wait_closed()
        await runner.cleanup()
        return answer

    assert b"late" not in asyncio.run(scenario())
    assert caplog.records == []
