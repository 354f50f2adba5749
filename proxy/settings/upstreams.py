"""What the configuration says about one inference server."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, SecretStr

from proxy.settings.fields import FilePath, ModelName, Name, UpstreamUrl
from proxy.settings.sections import Section, entry

Engine = Literal["auto", "vllm", "sglang", "trtllm", "dynamo", "tgi", "llamacpp", "ollama", "openai"]


class UpstreamTls(Section):
    ca: FilePath | None = entry(None, "PEM file with the authorities that are trusted; null: those of the system")
    verify: bool = entry(True, "check the certificate and its host name")


class Limit(Section):
    mode: Literal["adaptive", "fixed"] = entry(
        "adaptive", "adaptive: the limit follows the target; fixed: it is `initial`"
    )
    law: Literal["model", "aimd", "seed"] = entry("model", "model: fitted step time; aimd; seed: see seed_law")
    initial: int = entry(8, "requests at once, at start", ge=1, le=100_000)
    min: int = entry(1, "requests at once, never fewer", ge=1, le=100_000)
    max: int | None = entry(
        None, "requests at once, never more; null: the memory ceiling alone bounds it", ge=1, le=100_000
    )


class SeedLaw(Section):
    interval: int = entry(10, "samples between decisions", ge=1, le=10_000)
    increase: float = entry(1.5, "factor upward", gt=1, le=10)
    decrease: float = entry(0.7, "factor downward", gt=0, lt=1)
    deadband: float = entry(0.8, "share of the target below which the limit may grow", gt=0, le=1)


class Plan(Section):
    model: str = entry(..., "a model's config.json, or a name that `penstock plan` knows", min_length=1)
    accelerator: str = entry(..., "name of the accelerator, for example h100-sxm", min_length=1)
    count: int = entry(1, "accelerators that serve one copy of the model", ge=1, le=4096)
    tp: int | None = entry(None, "tensor parallel size; null: `count`", ge=1, le=4096)
    kv_dtype: str = entry("auto", "number format of the KV cache; auto: that of the model", min_length=1)
    fraction: float = entry(0.9, "share of the accelerator's memory that the engine takes", gt=0, le=1)


class Memory(Section):
    source: Literal["auto", "plan", "tokens", "seats", "none"] = entry(
        "auto", "where the memory ceiling comes from; auto: the engine tells, else the plan"
    )
    tokens: int | None = entry(None, "tokens of KV cache, with source: tokens", ge=1, le=2**48)
    seats: int | None = entry(None, "requests at once, with source: seats", ge=1, le=1_000_000)
    plan: Plan | None = entry(None, "mapping with model, accelerator, count, tp, kv_dtype, fraction")


class UpstreamTarget(Section):
    """Overrides of `target`; null: as there."""

    itl_ms: float | None = entry(None, "milliseconds per output token; null: as in `target`", gt=0, le=60_000)
    ttft_ms: float | None = entry(None, "milliseconds to the first token; null: as in `target`", gt=0, le=3_600_000)
    attainment: float | None = entry(None, "share that should meet it; null: as in `target`", gt=0, lt=1)


class Upstream(Section):
    name: Name = entry(..., "name in metrics, logs and admin paths; without it upstream-0, upstream-1, ...")
    url: UpstreamUrl = entry(..., "scheme, host and port of the engine")
    engine: Engine = entry("auto", "which engine it is")
    models: Literal["auto"] | Annotated[tuple[ModelName, ...], Field(min_length=1)] = entry(
        "auto", "auto: asked from the engine, or a list of names"
    )
    api_key: SecretStr | None = entry(None, "bearer key towards the engine; a client's key is never forwarded")
    weight: float = entry(1.0, "share of the load beside the others", gt=0, le=1000)
    shared_by: Literal["auto"] | Annotated[int, Field(ge=1, le=1000)] = entry(
        1, "how many proxies share this engine: a number, or auto"
    )
    tls: UpstreamTls = entry(UpstreamTls(), "for https URLs")
    limit: Limit = entry(Limit(), "how many requests run at once")
    seed_law: SeedLaw = entry(SeedLaw(), "for law: seed")
    memory: Memory = entry(Memory(), "the ceiling from KV-cache memory")
    target: UpstreamTarget = entry(UpstreamTarget(), "latency target of this upstream")
