"""What the configuration says about those who send requests."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator

from proxy.settings.fields import ClassName, FilePath, KeyHash, ModelName, Name, one_of_each
from proxy.settings.sections import Section, entry


class Tenant(Section):
    name: Name = entry(..., "name in metrics, logs and the tenant header")
    keys: Annotated[tuple[KeyHash, ...], AfterValidator(one_of_each)] = entry(
        (), "SHA-256 lines of its keys, made by `penstock keys hash`"
    )
    weight: float = entry(1.0, "share beside other tenants of a class", gt=0, le=1000)
    default_class: ClassName = entry("normal", "class of requests that ask for none")
    max_class: ClassName = entry("high", "highest class that it may use; more is lowered to it")
    max_in_flight: int | None = entry(None, "requests running at once; null: no bound", ge=1, le=1_000_000)
    max_queued: int | None = entry(
        None, "requests waiting at once; null: queue.tenant_share, none above max_in_flight", ge=1, le=1_000_000
    )
    tokens_per_minute: int | None = entry(None, "tokens per minute, prompt and output; null: no bound", ge=1, le=2**40)
    requests_per_minute: int | None = entry(None, "requests per minute; null: no bound", ge=1, le=2**31)
    models: Annotated[tuple[ModelName, ...], AfterValidator(one_of_each)] | None = entry(
        None, "models that it may use; null: all"
    )


class Anonymous(Section):
    allowed: bool = entry(
        True,
        "requests without a key are served; false by default where tenants are defined and `listen` is no loopback",
    )
    default_class: ClassName = entry("normal", "class of requests that ask for none")
    max_class: ClassName = entry("high", "highest class without a key")


class Tenants(Section):
    file: FilePath | None = entry(None, "YAML file `tenants: [...]` with entries as in `list`")
    list: tuple[Tenant, ...] = entry((), "entries with name, keys, weight, classes and bounds")
    anonymous: Anonymous = entry(Anonymous(), "requests without a key, all one flow")
