"""TLS on both sides: what is sent through it, connections that end without a goodbye, handshakes that never end."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.e2e.conftest import settings, upstream
from tests.e2e.harness import ProxyProcess, assert_clean, running
from tests.e2e.raw_client import RawClient, bare, chat, post
from tests.e2e.scripted_upstream import (
    DONE,
    STREAM_HEAD,
    Do,
    ScriptedUpstream,
    answer,
    chunk,
    token,
    wait_for,
    whole_stream,
)

CERTIFICATES = Path(__file__).parent.parent / "adapters" / "certificates"
VALID, KEY = CERTIFICATES / "valid.pem", CERTIFICATES / "key.pem"
CLOSE_DELIMITED = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"


@dataclass
class Secured:
    proxy: ProxyProcess
    engine: ScriptedUpstream

    def connect(self) -> RawClient:
        context = ssl.create_default_context(cafile=str(VALID))
        client = RawClient(self.proxy.port)
        client.socket = context.wrap_socket(client.socket, server_hostname="localhost")
        return client


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(VALID, KEY)
    engine = ScriptedUpstream(tls=context)
    config = settings(
        upstream("one", engine.url, "m", tls={"ca": str(VALID)}), listen={"tls": {"cert": str(VALID), "key": str(KEY)}}
    )
    with running(tmp_path_factory.mktemp("secured"), config) as proxy:
        yield Secured(proxy, engine)
    engine.close()


def test_answers_and_streams_pass_over_connections_that_are_kept(secured: Secured) -> None:
    with secured.connect() as client:
        for _ in range(3):
            secured.engine.reset(answer())
            assert client.send(post(chat())).answer().body == b'{"ok":true}'
            secured.engine.reset(whole_stream())
            found = client.send(post(chat(stream=True))).answer()
            assert (found.status, found.complete, found.body.endswith(DONE)) == (200, True, True)
    assert secured.engine.calls[-1].reused


@pytest.mark.parametrize(
    ("head", "ends", "whole"),
    [
        pytest.param(CLOSE_DELIMITED, (token(finish="stop"), DONE), True, id="after its end mark"),
        pytest.param(CLOSE_DELIMITED, (token(),), False, id="before its end mark"),
        pytest.param(STREAM_HEAD, (chunk(token(finish="stop")), chunk(DONE)), True, id="without the last chunk"),
        pytest.param(STREAM_HEAD, (chunk(token()),), False, id="in chunks, before its end mark"),
    ],
)  # fmt: skip
def test_an_engine_that_closes_without_close_notify(
    secured: Secured, head: bytes, ends: tuple[bytes, ...], whole: bool
) -> None:
    secured.engine.reset(head + b"".join(ends), Do.CLOSE)
    with secured.connect() as client:
        found = client.send(post(chat(stream=True))).answer()
    assert (found.status, found.complete, b'"error"' in found.body) == (200, whole, not whole)
    assert_clean(secured.proxy)


@pytest.mark.parametrize("reset", [False, True], ids=["FIN", "RST"])
def test_a_client_that_leaves_takes_its_work_along(secured: Secured, reset: bool) -> None:
    secured.engine.reset(STREAM_HEAD + chunk(token()), Do.HOLD)
    with secured.connect() as client:
        client.send(post(chat(stream=True))).read_until(b"data: ")
        if reset:
            client.reset()
    secured.engine.calls[0].wait_gone()
    assert_clean(secured.proxy)


def test_who_never_ends_the_handshake_or_speaks_plainly_holds_nothing(secured: Secured) -> None:
    with RawClient(secured.proxy.port) as silent, RawClient(secured.proxy.port) as plain:
        plain.send(bare("GET /health HTTP/1.1"))
        for client in (plain, silent):
            while client.receive():
                pass  # an alert may come before the end
    with secured.connect() as fine:
        assert fine.send(bare("GET /health HTTP/1.1")).answer().status == 200
    wait_for(lambda: secured.proxy.state()["server"]["connections"] == 0, "nobody is left")
