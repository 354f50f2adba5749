"""The whole configuration as one typed, frozen value."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from pydantic import field_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from proxy.settings.sections import (
    Admin,
    Breaker,
    Limits,
    Listen,
    Log,
    Metrics,
    PriorityClass,
    Probe,
    Queue,
    Routing,
    Target,
    Telemetry,
    Tracing,
    Trust,
    entry,
)
from proxy.settings.tenants import Tenants
from proxy.settings.upstreams import Upstream

DEFAULT_CLASSES = (
    PriorityClass(name="critical", floor=0.0, holdback=1.0, queue_max=256, queue_timeout_s=30, priority_max=-10),
    PriorityClass(
        name="high", floor=0.15, holdback=0.97, queue_timeout_s=30, priority_max=-1, service_tiers=("priority", "fast")
    ),
    PriorityClass(
        name="normal",
        floor=0.10,
        holdback=0.93,
        queue_max=2048,
        priority_max=0,
        service_tiers=("auto", "default", "scale", "standard_only"),
    ),
    PriorityClass(name="low", floor=0.05, holdback=0.85, queue_max=4096, queue_timeout_s=300, service_tiers=("flex",)),
)


class Settings(BaseSettings):
    """Every setting. Made by `proxy.settings.load`, which merges the sources itself: lists merge by index, and each
    value keeps its place of origin for the error message."""

    model_config = SettingsConfigDict(
        extra="forbid", frozen=True, allow_inf_nan=False, hide_input_in_errors=True, env_prefix="PENSTOCK_"
    )

    listen: Listen = entry(Listen(), "the public, OpenAI-compatible listener")
    admin: Admin = entry(Admin(), "health, metrics, state and operations")
    upstreams: tuple[Upstream, ...] = entry((), "inference servers, each with its own adaptive limit", max_length=1000)
    target: Target = entry(Target(), "latency that the limits aim at")
    queue: Queue = entry(Queue(), "bounds of all waiting requests together")
    classes: tuple[PriorityClass, ...] = entry(
        DEFAULT_CLASSES, "priority classes, highest first", min_length=1, max_length=32
    )
    tenants: Tenants = entry(Tenants(), "who may send, and how much")
    trust: Trust = entry(Trust(), "headers that are believed")
    routing: Routing = entry(Routing(), "choice of upstream, tries and time-outs")
    probe: Probe = entry(Probe(), "active checks of each upstream")
    telemetry: Telemetry = entry(Telemetry(), "what engines tell about themselves")
    breaker: Breaker = entry(Breaker(), "stops sending to an upstream that fails")
    limits: Limits = entry(Limits(), "bounds of a single request")
    metrics: Metrics = entry(Metrics(), "what /metrics tells")
    log: Log = entry(Log(), "what is logged: one line per request")
    tracing: Tracing = entry(Tracing(), "trace context (W3C traceparent)")

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return (init_settings,)

    @field_validator("upstreams", mode="before")
    @classmethod
    def _name_upstreams(cls, value: Any) -> Any:
        if not isinstance(value, list):
            return value
        return [{"name": f"upstream-{i}"} | item if isinstance(item, dict) else item for i, item in enumerate(value)]

    def hash(self) -> str:
        """12 hex digits that change with the configuration; secrets are masked before, so they leave no trace."""
        plain = json.dumps(self.model_dump(mode="json"), sort_keys=True)
        return hashlib.sha256(plain.encode()).hexdigest()[:12]
