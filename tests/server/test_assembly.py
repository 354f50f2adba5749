from __future__ import annotations

import hashlib
import ssl
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest

from proxy.server import assembly
from proxy.settings import Settings, load
from proxy.wire.priority import ClassRule, TenantRule

CERTIFICATES = Path(__file__).parent.parent / "adapters" / "certificates"
DIGESTS = [hashlib.sha256(key).digest() for key in (b"one", b"two", b"three")]
ACME = {"name": "acme", "keys": [f"sha256:{digest.hex()}" for digest in DIGESTS[:2]], "models": ["m"]}
LOW = {"name": "slow", "keys": [f"sha256:{DIGESTS[2].hex()}"], "default_class": "low", "max_class": "normal"}


def settings(**sections: Any) -> Settings:
    return load(None, sections, {})


def test_tenants_become_tables() -> None:
    anonymous = {"allowed": True, "default_class": "low", "max_class": "low"}
    config = assembly.tenancy_config(
        settings(tenants={"list": [ACME, LOW], "anonymous": anonymous}, trust={"proxies": ["10.1.2.3/8", "::1"]})
    )
    acme, slow = TenantRule("acme", "normal", "high", frozenset("m")), TenantRule("slow", "low", "normal", None)
    assert config.by_name == {"acme": acme, "slow": slow}
    assert config.by_digest == {DIGESTS[0]: acme, DIGESTS[1]: acme, DIGESTS[2]: slow}
    assert config.anonymous == config.unnamed == TenantRule("anonymous", "low", "low", None)
    assert config.trusted == (ip_network("10.0.0.0/8"), ip_network("::1/128"))


def test_without_anonymous_a_key_is_required_and_an_unknown_name_still_has_a_rule() -> None:
    config = assembly.tenancy_config(settings(tenants={"list": [ACME], "anonymous": {"allowed": False}}))
    assert (config.anonymous, config.unnamed) == (None, TenantRule("anonymous", "normal", "high", None))


def test_what_the_intake_is_told() -> None:
    listen = {"max_body_bytes": 2048, "body_timeout_s": 7, "body_min_bytes_per_s": 9}
    classes = [{"name": "high", "priority_max": -1, "service_tiers": ["fast"]}, {"name": "normal"}]
    config = assembly.intake_config(settings(listen=listen, classes=classes, limits={"max_choices": 3}))
    assert config.classes == (ClassRule("high", -1, frozenset({"fast"})), ClassRule("normal", None, frozenset()))
    bounds = (config.max_body_bytes, config.body_timeout_s, config.body_min_bytes_per_s, config.max_choices)
    assert bounds == (2048, 7, 9, 3)


def test_the_names_of_headers_that_are_believed() -> None:
    heads = assembly.head_reader(settings(trust={"tenant_header": "x-who", "priority_headers": ["x-class", "x-rank"]}))
    facts = heads.read([(b"Host", b"a"), (b"X-Who", b"acme"), (b"X-Rank", b"3"), (b"X-Class", b"high")])
    assert (facts.tenant, list(facts.priorities)) == (b"acme", ["high", "3"])


def test_what_the_listener_is_told() -> None:
    given = {
        "host": "::1", "port": 3, "max_connections": 4, "head_timeout_s": 5, "write_timeout_s": 6, "reuse_port": True,
    }  # fmt: skip
    config = assembly.listen_config(settings(listen=given))
    assert {name: getattr(config, name) for name in given} == given
    assert config.tls is None


def test_the_certificate_of_the_listener() -> None:
    pair = {"cert": str(CERTIFICATES / "valid.pem"), "key": str(CERTIFICATES / "key.pem")}
    tls = assembly.listen_config(settings(listen={"tls": pair})).tls
    assert tls is not None
    assert tls.verify_mode is ssl.CERT_NONE  # clients show a key, no certificate


@pytest.mark.parametrize(
    ("cert", "reason"), [("absent.pem", "No such file or directory"), ("key.pem", "they do not fit together")]
)
def test_a_certificate_that_cannot_be_used_is_named(cert: str, reason: str) -> None:
    pair = {"cert": str(CERTIFICATES / cert), "key": str(CERTIFICATES / "key.pem")}
    with pytest.raises(
        ValueError, match=rf"^listen\.tls: cannot use cert .*{cert}' with key .*key.pem' \({reason}\); "
    ):
        assembly.listen_config(settings(listen={"tls": pair}))


@pytest.mark.parametrize(("given", "token"), [({}, None), ({"token": "long enough"}, "long enough")])
def test_the_admin_token(given: dict[str, str], token: str | None) -> None:
    config = assembly.admin_config(settings(admin={"host": "a", "port": 5, **given}))
    assert (config.host, config.port, config.token) == ("a", 5, token)


def test_metrics_have_a_bucket_edge_at_every_target() -> None:
    upstreams: list[dict[str, Any]] = [{"url": f"http://e:{port}", "name": f"u{port}"} for port in (1, 2, 3)]
    upstreams[0]["target"] = {"itl_ms": 20}
    upstreams[1]["target"] = {"itl_ms": 20, "ttft_ms": 900}
    config = assembly.metrics_config(settings(upstreams=upstreams, metrics={"top_tenants": 7}), "9.9")
    assert (config.itl_targets_s, config.ttft_targets_s) == ((0.02, 0.05), (0.5, 0.9))
    assert (config.class_names, config.top_tenants, config.version) == (("critical", "high", "normal", "low"), 7, "9.9")


def test_logs() -> None:
    config = assembly.log_config(settings(log={"level": "debug", "format": "text", "sample_rate": 0.5}))
    assert (config.level, config.format, config.sample_rate) == ("debug", "text", 0.5)
