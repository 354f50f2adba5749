"""Which changes a running proxy can take over: all but its own sockets and what is fixed at start."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from proxy.settings.root import Settings

RESTART_SECTIONS = ("listen", "admin", "metrics", "log", "tracing")
LIVE_KEYS = frozenset(
    {"listen.drain_delay_s", "listen.drain_timeout_s", "listen.max_body_bytes", "log.level", "log.sample_rate"}
)


def restart_needed(old: Settings, new: Settings) -> list[str]:
    """Key paths that differ and hold only from the next start. Histogram buckets stay as they were without a word."""
    return [
        path
        for section in RESTART_SECTIONS
        for path in _differing(section, getattr(old, section).model_dump(), getattr(new, section).model_dump())
        if path not in LIVE_KEYS
    ]


def _differing(path: str, old: Any, new: Any) -> Iterator[str]:
    if isinstance(old, dict) and isinstance(new, dict):
        for name in old:
            yield from _differing(f"{path}.{name}", old[name], new[name])
    elif old != new:
        yield path
