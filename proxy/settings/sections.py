"""The sections of the configuration that stand alone. Each key gives unit, bounds, default and one line of help."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr

from proxy.settings.fields import ClassName, FilePath, HeaderName, Network, one_of_each

DAY_S = 86_400.0
GIB = 2**30


class Section(BaseModel):
    """A mapping of the file: no unknown keys, no later change, no infinite numbers."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, hide_input_in_errors=True)


def entry(default: Any, text: str, **bounds: Any) -> Any:
    """One key: its default, its help with the unit, its bounds."""
    return Field(default, description=text, **bounds)


class ListenTls(Section):
    cert: FilePath | None = entry(None, "PEM file with the certificate chain; with it the listener speaks https")
    key: FilePath | None = entry(None, "PEM file with the private key")


class Listen(Section):
    host: str = entry("0.0.0.0", "address of the public listener", min_length=1)  # noqa: S104  # a server's purpose
    port: int = entry(8080, "TCP port; 0 takes any free one", ge=0, le=65_535)
    max_body_bytes: int = entry(33_554_432, "bytes; longer request bodies get 413", ge=1024, le=4 * GIB)
    max_connections: int = entry(10_000, "client connections at once; further ones wait", ge=1, le=1_000_000)
    head_timeout_s: float = entry(10, "seconds for a whole request head", gt=0, le=3600)
    body_timeout_s: float = entry(60, "seconds for a body, on top of bytes / body_min_bytes_per_s", gt=0, le=DAY_S)
    body_min_bytes_per_s: int = entry(65_536, "bytes per second of the slowest accepted upload", ge=1, le=GIB)
    write_timeout_s: float = entry(
        30, "seconds without progress until a client that does not read is cut", gt=0, le=3600
    )
    drain_delay_s: float = entry(0, "seconds between `not ready` and the end of accepting, at shutdown", ge=0, le=3600)
    drain_timeout_s: float = entry(30, "seconds for running requests to end, at shutdown", ge=0, le=DAY_S)
    reuse_port: bool = entry(False, "several processes share the port (SO_REUSEPORT)")
    tls: ListenTls = entry(ListenTls(), "https on the public listener")


class Admin(Section):
    host: str = entry("127.0.0.1", "address of the admin listener", min_length=1)
    port: int = entry(8081, "TCP port; 0 takes any free one", ge=0, le=65_535)
    token: SecretStr | None = entry(None, "bearer token for writes and for access from elsewhere", min_length=8)
    token_file: FilePath | None = entry(None, "file that holds the token, instead of `token`")


class Target(Section):
    itl_ms: float = entry(50, "milliseconds per output token", gt=0, le=60_000)
    ttft_ms: float = entry(500, "milliseconds to the first token, own queue wait excluded", gt=0, le=3_600_000)
    attainment: float = entry(0.95, "share of tokens and requests that should meet the target", gt=0, lt=1)


class Queue(Section):
    max_bytes: int = entry(
        1_073_741_824, "bytes of all waiting bodies, from the moment they are read", ge=1024, le=2**40
    )
    tenant_share: float = entry(0.5, "share of places and bytes that one tenant may hold", gt=0, le=1)
    keepalive_s: float = entry(0, "seconds between SSE comments to a waiting stream; 0: none", ge=0, le=3600)


class PriorityClass(Section):
    name: ClassName = entry(..., "name in headers, metrics and tenants")
    floor: float = entry(0.0, "share of the seats kept for this class while it waits", ge=0, le=1)
    holdback: float = entry(1.0, "share of the limit that this class may fill", gt=0, le=1)
    queue_max: int = entry(1024, "requests that may wait", ge=1, le=1_000_000)
    queue_timeout_s: float = entry(60, "seconds that a request may wait", gt=0, le=DAY_S)
    priority_max: int | None = entry(None, "largest request priority of this class (lower is first); null: all others")
    service_tiers: Annotated[tuple[str, ...], AfterValidator(one_of_each)] = entry((), "values of service_tier")


class Trust(Section):
    proxies: tuple[Network, ...] = entry((), "addresses or networks in front whose tenant header is believed")
    tenant_header: HeaderName = entry("x-tenant-id", "header with the tenant's name, from trusted proxies")
    tenant_name_max: int = entry(
        128, "characters of a tenant's name in that header; longer ones get 400", ge=1, le=1024
    )
    priority_headers: tuple[HeaderName, HeaderName] = entry(
        ("x-priority", "x-request-priority"), "header with a class name, header with a whole number"
    )


class Routing(Section):
    policy: Literal["least_loaded", "power_of_two", "round_robin", "prefix_affinity"] = entry(
        "least_loaded", "how an upstream is chosen"
    )
    retries: int = entry(2, "further tries after a failed one", ge=0, le=10)
    retry_on: Annotated[tuple[Literal["connect", "shed", "stale"], ...], AfterValidator(one_of_each)] = entry(
        ("connect", "shed", "stale"), "connect: nothing was sent; shed: the engine's own 429 or 503; stale: dead reuse"
    )
    retry_budget: float = entry(0.1, "retries per request, at most, in the long run", ge=0, le=1)
    connect_timeout_s: float = entry(2, "seconds to connect to an upstream", gt=0, le=600)
    connection_max_age_s: float = entry(
        300, "seconds after which a connection to an upstream is not used again: a name that moved is followed", gt=0,
        le=DAY_S,
    )  # fmt: skip
    ttft_timeout_s: float = entry(300, "seconds from dispatch to the first event of a stream", gt=0, le=DAY_S)
    itl_timeout_s: float = entry(60, "seconds of silence inside a stream", gt=0, le=DAY_S)
    response_timeout_s: float = entry(
        900, "seconds from dispatch to the end of an answer that is no stream", gt=0, le=DAY_S
    )


class Probe(Section):
    path: str = entry("auto", "path asked for readiness; auto: /v1/models", pattern=r"^(auto|/[!-~]*)$")
    interval_s: float = entry(5, "seconds between probes", ge=0.1, le=3600)
    timeout_s: float = entry(2, "seconds until a probe counts as failed", gt=0, le=600)
    fail_after: int = entry(3, "failed probes in a row that make an upstream unhealthy", ge=1, le=100)
    pass_after: int = entry(2, "good probes in a row that make it healthy again", ge=1, le=100)


class Telemetry(Section):
    interval_s: float = entry(1, "seconds between reads of an engine's metrics", ge=0.1, le=3600)
    max_age_s: float = entry(5, "seconds after which a reading is no longer used", gt=0, le=DAY_S)


class Breaker(Section):
    window_s: float = entry(10, "seconds of history that are judged", gt=0, le=3600)
    min_requests: int = entry(10, "requests in the window before it may open", ge=1, le=1_000_000)
    failure_ratio: float = entry(0.5, "share of failures that opens it", gt=0, le=1)
    open_s: float = entry(5, "seconds until one request may try again", gt=0, le=3600)


class Limits(Section):
    max_choices: int = entry(128, "answers per request: `n`, and prompts times n", ge=1, le=100_000)


class Metrics(Section):
    top_tenants: int = entry(50, "tenants with a label of their own; the rest are `other`", ge=0, le=10_000)


class Log(Section):
    level: Literal["debug", "info", "warning", "error"] = entry("info", "least level that is written")
    format: Literal["auto", "json", "text"] = entry("auto", "auto: text on a terminal, else one JSON object per line")
    sample_rate: float = entry(1.0, "share of successful requests that get a line; all others always do", ge=0, le=1)


class Tracing(Section):
    enabled: bool = entry(False, "OpenTelemetry spans and exemplars; needs the extra `otel`. traceparent passes anyway")
    sample_ratio: float = entry(
        0.01, "share of the traces started here that are sampled; a caller's decision holds", ge=0, le=1
    )
