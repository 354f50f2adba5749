from __future__ import annotations

import hashlib
from ipaddress import ip_network

import pytest

from proxy.server import tenancy
from proxy.server.tenancy import Tenancy, TenancyConfig
from proxy.wire.errors import BadRequest
from proxy.wire.headers import HeadFacts
from proxy.wire.priority import TenantRule

ACME = TenantRule("acme", "normal", "high")
FREE = TenantRule("anonymous", "low", "low")
OUTSIDE = b"203.0.113.9"


def digest(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()


def make(anonymous: TenantRule | None = None, keys: bool = True, trusted: tuple[str, ...] = ()) -> Tenancy:
    networks = tuple(ip_network(text) for text in trusted)
    return Tenancy(TenancyConfig({digest(b"k1"): ACME} if keys else {}, {"acme": ACME}, anonymous, FREE, networks))


@pytest.mark.parametrize(
    ("key", "anonymous", "keys", "expected"),
    [
        pytest.param(b"k1", None, True, ACME, id="its key"),
        pytest.param(b"k2", None, True, None, id="a wrong key"),
        pytest.param(b"k2", FREE, True, None, id="a wrong key is wrong though none would do"),
        pytest.param(b"", FREE, True, None, id="an empty key"),
        pytest.param(digest(b"k1"), None, True, None, id="the digest is no key"),
        pytest.param(None, FREE, True, FREE, id="no key, allowed"),
        pytest.param(None, None, True, None, id="no key, not allowed"),
        pytest.param(b"any", FREE, False, FREE, id="without tenants any key will do"),
    ],
)
def test_who_a_key_belongs_to(
    key: bytes | None, anonymous: TenantRule | None, keys: bool, expected: TenantRule | None
) -> None:
    assert make(anonymous, keys).find(HeadFacts(key=key), OUTSIDE) == expected


def test_a_trusted_proxys_name_has_a_longest_length_and_a_strangers_does_not_matter() -> None:
    tenants = make(FREE, keys=False, trusted=("10.0.0.0/8",))
    name = b"n" * tenants.config.name_max
    found = tenants.find(HeadFacts(tenant=name), b"10.0.0.1")
    assert found is not None and found.name == name.decode()
    with pytest.raises(BadRequest, match="at most 128"):
        tenants.find(HeadFacts(tenant=name + b"n"), b"10.0.0.1")
    assert tenants.find(HeadFacts(tenant=name + b"n"), OUTSIDE) == FREE


PROXIES = ("10.0.0.0/8", "2001:db8::/32")


@pytest.mark.parametrize(
    ("peer", "name", "expected"),
    [
        (b"10.1.2.3", b"acme", ACME),
        (b"2001:db8::7", b"acme", ACME),
        (b"10.1.2.3", b"new", TenantRule("new", "low", "low")),
        (b"10.1.2.3", b"", None),
        (OUTSIDE, b"acme", None),
        (b"unknown", b"acme", None),
    ],
)
def test_the_tenant_header_counts_only_from_trusted_proxies(
    peer: bytes, name: bytes, expected: TenantRule | None
) -> None:
    one = make(trusted=PROXIES)
    for _ in range(2):  # the second time from memory
        assert one.find(HeadFacts(tenant=name), peer) == expected
    assert make().find(HeadFacts(tenant=name), peer) is None


def test_named_tenants_and_addresses_are_remembered_up_to_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tenancy, "HEADER_TENANTS_MAX", 2)
    one = make(trusted=PROXIES)
    found = [one.find(HeadFacts(tenant=name), b"10.0.0.%d" % n) for n, name in enumerate((b"a", b"b", b"c", b"a"))]
    assert [rule.name for rule in found if rule] == ["a", "b", "anonymous", "a"]
    assert (len(one._named), len(one._trusted)) == (2, 2)
