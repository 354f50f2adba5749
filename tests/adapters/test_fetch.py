from __future__ import annotations

import asyncio
import errno
import socket
import ssl
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import aiohttp
import pytest

from proxy.adapters.fetch import BODY_MAX_BYTES, Answer, FetchError, fetch, reason_of
from proxy.adapters.session import client_session, tls_context
from tests.adapters.scripted_engine import ENDLESS, HANG, RESET, reply, scripted_engine, unused_port

CERTIFICATES = Path(__file__).parent / "certificates"
LIMIT_S = 5.0
KEY = "sk-do-not-tell"


async def ask(url: str, timeout_s: float = LIMIT_S, tls: ssl.SSLContext | None = None) -> Answer | str:
    async with client_session() as session:
        try:
            return await fetch(session, url, timeout_s, {"Authorization": f"Bearer {KEY}"}, tls)
        except FetchError as error:
            assert KEY not in repr(error)
            return str(error)


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        (reply("{}", headers="Server: uvicorn\r\n"), Answer(200, "uvicorn", b"{}")),
        (reply("busy", 503, "Server: a\x01b\x7f" + "c" * 99 + "\r\n"), Answer(503, "ab" + "c" * 60, b"busy")),
        (reply("", 302, "Location: http://192.0.2.1/\r\nSet-Cookie: a=b\r\n"), Answer(302, "", b"")),
        (reply(b"\x1f\x8b\x08", headers="Content-Encoding: gzip\r\n"), Answer(200, "", b"\x1f\x8b\x08")),
        (reply(b"x" * BODY_MAX_BYTES), Answer(200, "", b"x" * BODY_MAX_BYTES)),
        (reply(b"x" * (BODY_MAX_BYTES + 1)), "answer above 1 MiB"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1073741824\r\n\r\nx", "answer above 1 MiB"),
        (ENDLESS, "answer above 1 MiB"),
        (RESET, "connection reset"),
        (b"", "connection closed"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "answer is not HTTP"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc", "answer cut short"),
    ],
)  # fmt: skip
def test_every_answer_is_bounded_and_every_failure_has_a_reason(script: bytes, expected: Answer | str) -> None:
    async def run() -> Answer | str:
        async with scripted_engine({"/page": script}) as engine:
            found = await ask(f"{engine.url}/page")
            assert engine.asked == ["/page"] or script in (b"", RESET)  # aiohttp sends a GET twice on a lost connection
            return found

    assert asyncio.run(run()) == expected


def test_silence_ends_at_the_deadline() -> None:
    async def run() -> Answer | str:
        async with scripted_engine({"/page": HANG}) as engine:
            return await ask(f"{engine.url}/page", timeout_s=0.05)

    assert asyncio.run(run()) == "timeout"


def test_a_closed_port_is_refused_and_a_bad_url_is_named() -> None:
    async def run() -> tuple[object, ...]:
        port = await unused_port()
        return await ask(f"http://127.0.0.1:{port}/x"), await ask("http:///x")

    assert asyncio.run(run()) == ("refused", "url not usable")


def server_tls(certificate: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(CERTIFICATES / certificate, CERTIFICATES / "key.pem")
    return context


@pytest.mark.parametrize(
    ("certificate", "host", "ca", "verify", "expected"),
    [
        ("valid.pem", "localhost", "valid.pem", True, Answer(200, "", b"{}")),
        ("valid.pem", "127.0.0.2", "valid.pem", True, "certificate for another address"),
        ("valid.pem", "localhost", None, True, "certificate not trusted"),
        ("expired.pem", "localhost", "expired.pem", True, "certificate expired"),
        ("expired.pem", "localhost", None, False, Answer(200, "", b"{}")),
    ],
)
def test_a_certificate_is_checked_and_its_fault_named(
    certificate: str, host: str, ca: str | None, verify: bool, expected: Answer | str
) -> None:
    async def run() -> Answer | str:
        async with scripted_engine({"/": reply("{}")}, server_tls(certificate), host) as engine:
            context = tls_context(str(CERTIFICATES / ca) if ca else None, verify)
            return await ask(f"https://{host}:{engine.port}/", tls=context)

    assert asyncio.run(run()) == expected


def test_tls_towards_a_plain_server_fails_without_falling_back() -> None:
    async def run() -> Answer | str:
        async with scripted_engine({"/": reply("{}")}) as engine:
            return await ask(f"https://127.0.0.1:{engine.port}/")

    assert asyncio.run(run()) == "TLS failed"


def with_code(code: int) -> ssl.SSLCertVerificationError:
    error = ssl.SSLCertVerificationError()
    error.verify_code = code
    return error


PEER = cast(Any, SimpleNamespace(host="secret.internal", port=1, ssl=True, is_ssl=True))


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (socket.gaierror(-2, "Name or service not known"), "name does not resolve"),
        (aiohttp.ClientConnectorDNSError(PEER, OSError(None, "no")), "name does not resolve"),
        (aiohttp.ClientConnectorError(PEER, OSError(errno.EHOSTUNREACH, "x")), "host unreachable"),
        (aiohttp.ClientConnectorError(PEER, OSError("several at once")), "connect failed"),
        (aiohttp.ClientConnectorCertificateError(PEER, with_code(62)), "certificate for another name"),
        (with_code(9), "certificate not yet valid"),
        (with_code(23), "certificate refused"),
        (aiohttp.ServerTimeoutError(), "timeout"),
        (OSError(errno.ENETUNREACH, "x"), "network unreachable"),
    ],
)  # fmt: skip
def test_reasons_are_few_and_tell_no_address(error: BaseException, reason: str) -> None:
    assert reason_of(error) == reason
