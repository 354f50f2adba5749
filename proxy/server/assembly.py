"""Settings -> the small configurations and objects of this floor."""

from __future__ import annotations

import ssl
from ipaddress import ip_network
from pathlib import Path
from random import Random

from proxy.adapters.logs import LogConfig
from proxy.adapters.metrics import MetricsConfig
from proxy.server.admin_guard import AdminConfig
from proxy.server.intake import IntakeConfig
from proxy.server.public import ListenConfig
from proxy.server.tenancy import TenancyConfig
from proxy.settings.ground import target
from proxy.settings.root import Settings
from proxy.wire.headers import HeadReader
from proxy.wire.priority import ClassRule, TenantRule
from proxy.wire.traced_heads import TracedHeads

ANONYMOUS = "anonymous"


def tenancy_config(settings: Settings) -> TenancyConfig:
    """Keys, names and networks as look-up tables."""
    by_digest: dict[bytes, TenantRule] = {}
    by_name: dict[str, TenantRule] = {}
    for tenant in settings.tenants.list:
        models = None if tenant.models is None else frozenset(tenant.models)
        rule = TenantRule(tenant.name, tenant.default_class, tenant.max_class, models)
        by_name[tenant.name] = rule
        by_digest |= {bytes.fromhex(key.removeprefix("sha256:")): rule for key in tenant.keys}
    free = settings.tenants.anonymous
    unnamed = TenantRule(ANONYMOUS, free.default_class, free.max_class, None)
    return TenancyConfig(
        by_digest=by_digest,
        by_name=by_name,
        anonymous=unnamed if free.allowed else None,
        unnamed=unnamed,
        trusted=tuple(ip_network(text, strict=False) for text in settings.trust.proxies),
        name_max=settings.trust.tenant_name_max,
    )


def intake_config(settings: Settings) -> IntakeConfig:
    return IntakeConfig(
        classes=tuple(
            ClassRule(entry.name, entry.priority_max, frozenset(entry.service_tiers)) for entry in settings.classes
        ),
        max_body_bytes=settings.listen.max_body_bytes,
        body_timeout_s=settings.listen.body_timeout_s,
        body_min_bytes_per_s=settings.listen.body_min_bytes_per_s,
        max_choices=settings.limits.max_choices,
    )


def head_reader(settings: Settings, traced: bool = False) -> HeadReader:
    names = [name.encode("ascii") for name in settings.trust.priority_headers]
    tenant = settings.trust.tenant_header.encode("ascii")
    if traced:
        return TracedHeads(tenant, names, settings.tracing.sample_ratio, Random())  # noqa: S311  # ids, no secret
    return HeadReader(tenant, names)


def listen_config(settings: Settings) -> ListenConfig:
    """ValueError when the certificate cannot be loaded."""
    listen = settings.listen
    return ListenConfig(
        host=listen.host,
        port=listen.port,
        max_connections=listen.max_connections,
        head_timeout_s=listen.head_timeout_s,
        write_timeout_s=listen.write_timeout_s,
        reuse_port=listen.reuse_port,
        tls=_tls(listen.tls.cert, listen.tls.key),
    )


def _tls(cert: Path | None, key: Path | None) -> ssl.SSLContext | None:
    if cert is None:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.set_alpn_protocols(["http/1.1"])
    try:
        context.load_cert_chain(cert, key)
    except OSError as error:  # of which ssl.SSLError is one; neither says which file
        plain = error.strerror if error.strerror and not isinstance(error, ssl.SSLError) else "they do not fit together"
        raise ValueError(
            f"listen.tls: cannot use cert {str(cert)!r} with key {str(key)!r} ({plain}); give PEM files of a "
            "certificate chain and its private key"
        ) from None
    return context


def admin_config(settings: Settings) -> AdminConfig:
    token = settings.admin.token
    return AdminConfig(
        host=settings.admin.host,
        port=settings.admin.port,
        token=token.get_secret_value() if token is not None else None,
    )


def metrics_config(settings: Settings, version: str) -> MetricsConfig:
    goals = [target(settings, upstream) for upstream in settings.upstreams]
    general = settings.target
    return MetricsConfig(
        class_names=tuple(entry.name for entry in settings.classes),
        itl_targets_s=tuple(sorted({general.itl_ms / 1000, *(goal.itl_s for goal in goals)})),
        ttft_targets_s=tuple(sorted({general.ttft_ms / 1000, *(goal.ttft_s for goal in goals)})),
        top_tenants=settings.metrics.top_tenants,
        version=version,
    )


def log_config(settings: Settings) -> LogConfig:
    return LogConfig(level=settings.log.level, format=settings.log.format, sample_rate=settings.log.sample_rate)
