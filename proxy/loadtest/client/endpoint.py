"""Where a load test goes: an OpenAI-compatible base URL, with or without `/v1`, and the request heads for it."""

from __future__ import annotations

import os
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from proxy import __version__
from proxy.adapters.session import tls_context
from proxy.loadtest.prompts import PATHS
from proxy.loadtest.workload import Flow


class EndpointError(ValueError):
    """The endpoint cannot be used; one line that says what to do."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """`base` is the path before `/v1`. Keys are never shown."""

    host: str
    port: int
    base: str = ""
    tls: ssl.SSLContext | None = field(default=None, repr=False)
    key: str = field(default="", repr=False)
    headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)

    @property
    def authority(self) -> str:
        name = f"[{self.host}]" if ":" in self.host else self.host
        return name if self.port == (443 if self.tls else 80) else f"{name}:{self.port}"

    @property
    def root(self) -> str:
        """URL without `/v1`, as other clients write it."""
        return f"{'https' if self.tls else 'http'}://{self.authority}{self.base}"

    def head(self, flow: Flow, environ: Mapping[str, str] = os.environ) -> bytes:
        """Request line and headers of a flow, up to the value of Content-Length."""
        key = environ.get(flow.key_env, "") if flow.key_env else self.key
        if flow.key_env and not key:
            raise EndpointError(f"flow {flow.name}: the environment variable {flow.key_env} is not set")
        lines = {
            "Host": self.authority,
            "User-Agent": f"penstock-loadtest/{__version__}",
            "Content-Type": "application/json",
            "Accept": "text/event-stream" if flow.stream else "application/json",
            **({"Authorization": f"Bearer {key}"} if key else {}),
            **({"x-tenant-id": flow.tenant} if flow.tenant else {}),
            **({"x-priority": flow.class_name} if flow.class_name else {}),
            **dict(self.headers),
        }
        text = "".join(f"{name}: {checked(value, name)}\r\n" for name, value in lines.items())
        return f"POST {self.base}{PATHS[flow.api]} HTTP/1.1\r\n{text}Content-Length: ".encode()


def checked(value: str, name: str) -> str:
    if not value.isascii() or not value.isprintable():
        raise EndpointError(f"header {name}: the value must be printable ASCII")
    return value


def read_endpoint(
    url: str, key: str = "", ca: str | None = None, verify: bool = True, headers: tuple[tuple[str, str], ...] = ()
) -> Endpoint:
    """Raises EndpointError."""
    parts = urlsplit(url if "://" in url else f"http://{url}")
    try:
        port = parts.port
    except ValueError:
        raise EndpointError(f"{url!r}: the port is no number below 65536") from None
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.username or parts.query or parts.fragment:
        raise EndpointError(f"{url!r} is no endpoint; give for example http://127.0.0.1:8000")
    secure = parts.scheme == "https"
    try:
        tls = tls_context(ca, verify) if secure else None
    except ValueError as error:
        raise EndpointError(str(error)) from None
    base = parts.path.rstrip("/").removesuffix("/v1")
    return Endpoint(parts.hostname, port or (443 if secure else 80), checked(base, "path"), tls, key, headers)
