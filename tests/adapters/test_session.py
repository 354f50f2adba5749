from __future__ import annotations

import asyncio
import ssl
from pathlib import Path

import aiohttp
import pytest

from proxy.adapters.session import client_session, tls_context
from tests.adapters.scripted_engine import reply, scripted_engine

CERTIFICATES = Path(__file__).parent / "certificates"


def test_a_session_keeps_no_cookie_asks_for_no_coding_and_ignores_proxies_of_the_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("http_proxy", "http://192.0.2.1:9")

    async def run() -> tuple[list[str], aiohttp.ClientSession]:
        async with (
            scripted_engine({"/": reply("", headers="Set-Cookie: a=b\r\n")}) as engine,
            client_session() as session,
        ):
            for _ in range(2):
                async with session.get(engine.url + "/") as response:
                    assert response.status == 200
            return engine.heads, session

    heads, session = asyncio.run(run())
    assert len(heads) == 2
    for head in heads:
        names = {line.partition(":")[0].lower() for line in head.splitlines()[1:]}
        assert names - {""} == {"host", "accept", "user-agent"}
        assert "User-Agent: penstock/" in head
    assert session.timeout.total is None


def test_connections_are_unbounded_and_dropped_before_the_engine_drops_them() -> None:
    async def run() -> tuple[int, float]:
        async with client_session() as session:
            connector = session.connector
            assert isinstance(connector, aiohttp.TCPConnector)
            return connector.limit, connector._keepalive_timeout or 0.0

    limit, idle_s = asyncio.run(run())
    assert limit == 0
    assert idle_s < 5


def test_verification_is_on_unless_switched_off() -> None:
    on, off = tls_context(), tls_context(verify=False)
    assert (on.verify_mode, on.check_hostname) == (ssl.CERT_REQUIRED, True)
    assert (off.verify_mode, off.check_hostname) == (ssl.CERT_NONE, False)


def test_own_authority_replaces_those_of_the_system() -> None:
    assert len(tls_context(str(CERTIFICATES / "valid.pem")).get_ca_certs()) == 1


@pytest.mark.parametrize(
    ("name", "reason"), [("missing.pem", "No such file or directory"), ("key.pem", "no certificate in it")]
)
def test_an_unusable_authority_is_named_with_the_remedy(name: str, reason: str) -> None:
    path = str(CERTIFICATES / name)
    with pytest.raises(ValueError, match=rf"^tls\.ca: .*{name}.* \({reason}\); give a PEM file of certificates$"):
        tls_context(path)
