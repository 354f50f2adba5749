from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable, Coroutine
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from proxy.server import deadlines, public
from proxy.server.public import Listener
from tests.adapters.shell import CHAT, Shell, said
from tests.server.edge import Edge, post, until

CERTIFICATES = Path(__file__).parent.parent / "adapters" / "certificates"
HEALTH = b"GET /health HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n"
TOKENIZE = post(b'{"model":"m"}', "/tokenize")


def play(scene: Callable[[Listener], Coroutine[Any, Any, None]], **listen: Any) -> None:
    async def whole() -> None:
        listener = Edge(host="127.0.0.1", **{"port": 0, **listen}).listener
        await listener.start()
        try:
            await scene(listener)
        finally:
            listener.abort()
            listener.stop_accepting()

    asyncio.run(whole())


async def ask(port: int, tls: ssl.SSLContext | None = None) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=tls)
    writer.write(HEALTH)
    answer = await reader.read()
    writer.close()
    return answer


def test_it_listens_on_the_port_that_it_names_until_it_stops_accepting() -> None:
    async def scene(listener: Listener) -> None:
        assert f"127.0.0.1:{listener.port} connections=0" in repr(listener)
        assert (await ask(listener.port)).startswith(b"HTTP/1.1 200 ")
        listener.stop_accepting()
        assert listener.draining
        assert listener.intake.draining
        with pytest.raises(ConnectionRefusedError):
            await ask(port)

    port = 0

    async def with_port(listener: Listener) -> None:
        nonlocal port
        port = listener.port
        await scene(listener)

    play(with_port)


def test_a_fault_in_one_connections_deadlines_ends_it_and_no_other() -> None:
    def fails() -> None:
        raise ValueError

    edge = Edge()
    broken, fine = edge.client(), edge.client()
    broken.transport.close = fails  # type: ignore[method-assign]
    edge.shell.now += 1000
    edge.listener.sweep()
    assert (broken.transport.aborted, fine.transport.ended) == (True, True)
    assert [type(error) for error in edge.errors] == [ValueError]


def test_before_the_start_the_port_is_the_configured_one() -> None:
    listener = Edge(port=4711).listener
    assert listener.port == 4711
    listener.stop_accepting()
    assert listener.draining


def test_a_taken_port_is_an_error_unless_it_is_shared() -> None:
    async def second(port: int, **listen: Any) -> int:
        other = Edge(host="127.0.0.1", port=port, **listen).listener
        await other.start()
        other.stop_accepting()
        return other.port

    async def taken(listener: Listener) -> None:
        with pytest.raises(OSError, match="address already in use"):
            await second(listener.port)

    async def shared(listener: Listener) -> None:
        assert await second(listener.port, reuse_port=True) == listener.port

    play(taken)
    play(shared, reuse_port=True)


def server_tls() -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(CERTIFICATES / "valid.pem", CERTIFICATES / "key.pem")
    return context


def test_who_has_connected_before_the_sockets_close_is_let_in() -> None:
    async def scene(listener: Listener) -> None:
        address = ("127.0.0.1", listener.port)
        with closing(socket.create_connection(address)) as client:  # the loop has not seen it yet
            await listener.close_sockets()
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection(address)
            client.setblocking(False)
            client.send(HEALTH)
            assert (await asyncio.get_running_loop().sock_recv(client, 100)).startswith(b"HTTP/1.1 200 ")

    play(scene)


def test_the_last_handshakes_are_not_waited_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(public, "ENTER_S", 0.05)

    async def scene(listener: Listener) -> None:
        with closing(socket.create_connection(("127.0.0.1", listener.port))):
            await asyncio.wait_for(listener.close_sockets(), 2)
            assert not listener.connections

    play(scene, tls=server_tls())


def test_tls() -> None:
    server, client = server_tls(), ssl.create_default_context()
    client.check_hostname, client.verify_mode = False, ssl.CERT_NONE

    async def scene(listener: Listener) -> None:
        assert (await ask(listener.port, client)).startswith(b"HTTP/1.1 200 ")

    play(scene, tls=server)


def test_the_deadlines_are_looked_at_again_and_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(public, "SWEEP_S", 0.001)
    monkeypatch.setattr(deadlines, "LAST_CALL_S", -1.0)

    async def scene(listener: Listener) -> None:
        looking = asyncio.get_running_loop().create_task(listener.run())
        with closing(socket.create_connection(("127.0.0.1", listener.port))) as client:
            client.setblocking(False)
            loop = asyncio.get_running_loop()
            await until(lambda: listener.connections)
            listener.draining = True  # an idle connection ends at the next look
            assert await loop.sock_recv(client, 1) == b""
        looking.cancel()

    play(scene)


def test_light_work_goes_past_the_gate() -> None:
    edge = Edge(Shell(seats=1))
    edge.shell.fill()
    light, heavy = edge.client(TOKENIZE), edge.client(post(b'{"model":"m"}', CHAT))
    edge.shell.answer(said(b"tokens"))
    assert light.take().endswith(b"tokens")
    assert heavy.take() == b""
    assert len(edge.listener.busy()) == 1


def test_connections_over_the_bound_are_not_read_until_there_is_room() -> None:
    edge = Edge(max_connections=2)
    clients = [edge.client() for _ in range(4)]
    seen = [[client.transport.reading for client in clients]]
    for number in (2, 0):  # one that was never read makes no room
        clients[number].leave()
        seen.append([client.transport.reading for client in clients])
    assert seen == [[True, True, False, False], [True, True, False, False], [True, True, False, True]]
    clients[1].leave()
    assert (len(edge.listener.connections), len(edge.listener.held)) == (1, 0)


def test_the_bound_counts_only_those_that_are_read() -> None:
    edge = Edge(max_connections=1)
    clients = [edge.client() for _ in range(4)]
    for client in clients[:-1]:
        assert client.transport.reading
        client.leave()
    assert clients[-1].transport.reading


def test_quiet_connections_are_those_whose_request_may_be_on_its_way() -> None:
    edge = Edge()
    busy = edge.client(post())
    edge.client(post()[:-1])
    assert not edge.listener.quiet()
    idle = edge.client()
    assert edge.listener.quiet()
    idle.leave()
    assert not edge.listener.quiet()
    edge.shell.answer(said())
    assert edge.listener.quiet()
    assert busy.take()


def test_abort_ends_every_connection_and_its_request() -> None:
    edge = Edge()
    busy, idle, gone = edge.client(post()), edge.client(), edge.client()
    gone.connection.transport = None
    edge.listener.abort()
    edge.shell.settle()
    assert [client.transport.aborted for client in (busy, idle, gone)] == [True, True, False]
    assert (edge.outcomes(), edge.shell.clean()) == (["client_gone"], True)
