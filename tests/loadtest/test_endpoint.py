from __future__ import annotations

import pytest

from proxy.loadtest.client.endpoint import Endpoint, EndpointError, read_endpoint
from proxy.loadtest.workload import Flow


@pytest.mark.parametrize(
    ("url", "host", "port", "base", "root"),
    [
        ("http://h:8000", "h", 8000, "", "http://h:8000"),
        ("http://h/v1/", "h", 80, "", "http://h"),
        ("https://h/api/v1", "h", 443, "/api", "https://h/api"),
        ("127.0.0.1:9", "127.0.0.1", 9, "", "http://127.0.0.1:9"),
        ("http://[::1]:81", "::1", 81, "", "http://[::1]:81"),
    ],
)
def test_urls_with_and_without_version(url: str, host: str, port: int, base: str, root: str) -> None:
    endpoint = read_endpoint(url)
    assert (endpoint.host, endpoint.port, endpoint.base, endpoint.root) == (host, port, base, root)
    assert (endpoint.tls is not None) == url.startswith("https")


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("ftp://h", "is no endpoint"),
        ("http://", "is no endpoint"),
        ("http://u:p@h", "is no endpoint"),
        ("http://h/?q=1", "is no endpoint"),
        ("http://h:99999", "no number below 65536"),
        ("http://h/é", "printable ASCII"),
    ],
)
def test_other_urls_are_refused(url: str, message: str) -> None:
    with pytest.raises(EndpointError, match=message):
        read_endpoint(url)


def test_a_wrong_certificate_file_is_named() -> None:
    with pytest.raises(EndpointError, match=r"cannot use 'none.pem'"):
        read_endpoint("https://h", ca="none.pem")


def test_heads_carry_key_tenant_class_and_further_headers() -> None:
    endpoint = Endpoint("h", 81, "/base", key="k", headers=(("x-more", "1"),))
    head = endpoint.head(Flow("f", class_name="low", tenant="acme", stream=False)).decode()
    assert head.startswith("POST /base/v1/chat/completions HTTP/1.1\r\nHost: h:81\r\n")
    assert head.endswith("\r\nContent-Length: ")
    for line in ("Authorization: Bearer k", "x-tenant-id: acme", "x-priority: low", "x-more: 1"):
        assert f"\r\n{line}\r\n" in head
    plain = Endpoint("h", 80).head(Flow("f", api="completions")).decode()
    assert plain.startswith("POST /v1/completions HTTP/1.1\r\nHost: h\r\n")
    assert not {"Authorization", "x-tenant-id", "x-priority"} & {line.split(":")[0] for line in plain.split("\r\n")}


def test_a_flow_s_own_key_comes_from_the_environment() -> None:
    endpoint, flow = Endpoint("h", 80, key="k"), Flow("f", key_env="ACME")
    assert b"Bearer own\r\n" in endpoint.head(flow, {"ACME": "own"})
    with pytest.raises(EndpointError, match="ACME is not set"):
        endpoint.head(flow, {})
    with pytest.raises(EndpointError, match="header Authorization: the value must be printable"):
        endpoint.head(flow, {"ACME": "a\r\nb"})
    assert "own" not in repr(endpoint)
    assert "'k'" not in repr(endpoint)
