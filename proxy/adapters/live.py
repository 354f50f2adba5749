"""Asks a running engine for its real ceiling, once, for the command `plan`: small GETs on the standard library.

`proxy.adapters.engines` knows the pages and reads them. Each answer is bounded in size and time, redirects are not
followed, and only http and https are spoken.
"""

from __future__ import annotations

import http.client
from dataclasses import dataclass, fields
from typing import Any
from urllib.parse import urlsplit

from proxy.adapters.engines import ENGINES
from proxy.adapters.engines.base import at
from proxy.adapters.engines.detect import PAGES, Page, document, fingerprint
from proxy.planning.fields import PlanError
from proxy.types import Telemetry

TIMEOUT_S = 5.0
BODY_MAX_BYTES = 4 << 20


@dataclass(frozen=True, slots=True)
class LiveEngine:
    """What an engine told about itself."""

    engine: str
    telemetry: Telemetry


def get(url: str, path: str = "") -> Page:
    """One page of an engine; any status but 200 is an empty body. Raises PlanError when nothing answers."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise PlanError("--from and --calibrate take an http:// or https:// URL of the engine")
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    try:
        connection = kind(parts.hostname, parts.port, timeout=TIMEOUT_S)
    except ValueError:
        raise PlanError("--from and --calibrate: the port of the URL is not a number below 65536") from None
    target = parts.path.rstrip("/") + path or "/"
    try:
        connection.request("GET", target, headers={"Accept": "*/*"})
        answer = connection.getresponse()
        body = answer.read(BODY_MAX_BYTES + 1) if answer.status == http.client.OK else b""
        server = answer.headers.get("Server") or ""
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "strerror", None) or type(error).__name__
        raise PlanError(f"the engine at {parts.hostname} does not answer ({reason}); check the URL") from None
    finally:
        connection.close()
    if len(body) > BODY_MAX_BYTES:
        raise PlanError(f"the engine's {target} is larger than {BODY_MAX_BYTES >> 20} MiB")
    return Page(body, server)


def ask_engine(url: str) -> LiveEngine:
    """The engine at `url` and what it tells. Raises PlanError when it does not answer."""
    pages: dict[str, Page] = {}
    name: str | None = None
    remaining = iter(PAGES)
    while name is None:  # conclusive at the last page at the latest
        path = next(remaining)
        pages[path] = get(url, path)
        name = fingerprint(pages)
    engine = ENGINES[name]
    found: dict[str, Any] = {}
    for path in engine.metrics_paths:
        page = pages.get(path) or get(url, path)
        _merge(found, engine.parse_metrics(page.body.decode("utf-8", "replace"), 0.0))
    for path in engine.info_paths:
        page = pages.get(path) or get(url, path)
        _merge(found, engine.parse_info(document(page.body), 0.0))
    _merge(found, _listing(pages.get("/v1/models") or get(url, "/v1/models")))
    return LiveEngine(engine.name, Telemetry(**{"at_s": 0.0, "engine": engine.name, **found}))


def _merge(found: dict[str, Any], told: Telemetry) -> None:
    """Takes what `told` knows and `found` does not yet."""
    for item in fields(told):
        value = getattr(told, item.name)
        if item.name != "at_s" and value not in (None, "", ()):
            found.setdefault(item.name, value)


def _listing(page: Page) -> Telemetry:
    """The longest request and the model's name, as /v1/models lists them."""
    listed = document(page.body)
    longest, name = at(listed, "data", 0, "max_model_len"), at(listed, "data", 0, "id")
    return Telemetry(
        at_s=0.0,
        context_tokens=longest if isinstance(longest, int) and longest > 0 else None,
        models=(name,) if isinstance(name, str) else (),
    )
