"""Rules that tie several keys together. Each problem is a path and a text with its remedy."""

from __future__ import annotations

import ipaddress
from collections.abc import Hashable, Iterable, Iterator

from proxy.settings.fields import known
from proxy.settings.root import Settings
from proxy.settings.trees import Path
from proxy.settings.upstreams import Upstream

Problem = tuple[Path, str]
EVERY_ADDRESS = {"0.0.0.0", "::"}  # noqa: S104  # compared, not bound


def is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def problems(settings: Settings) -> Iterator[Problem]:
    yield from _listeners(settings)
    yield from _repeated(((("upstreams", i, "name"), u.name) for i, u in enumerate(settings.upstreams)), "name")
    for index, upstream in enumerate(settings.upstreams):
        yield from (((("upstreams", index, *path)), text) for path, text in _upstream(upstream))
    yield from _classes(settings)
    yield from _tenants(settings)
    if len(set(settings.trust.priority_headers)) < 2:
        yield ("trust", "priority_headers"), "both are the same header; give two different names"


def _repeated(entries: Iterable[tuple[Path, Hashable]], what: str) -> Iterator[Problem]:
    first: dict[Hashable, Path] = {}
    for path, value in entries:
        if value in first:
            yield path, f"has the {what} of {'.'.join(map(str, first[value][:-1]))}; give each its own"
        first.setdefault(value, path)


def _listeners(settings: Settings) -> Iterator[Problem]:
    listen, admin = settings.listen, settings.admin
    if (listen.tls.cert is None) != (listen.tls.key is None):
        lacking = "cert" if listen.tls.cert is None else "key"
        yield ("listen", "tls"), f"{lacking} is missing; give cert and key, or neither"
    one_address = listen.host == admin.host or {listen.host, admin.host} & EVERY_ADDRESS
    if listen.port == admin.port != 0 and one_address:
        yield ("admin", "port"), f"{admin.port} is also listen.port; give another"


def _upstream(upstream: Upstream) -> Iterator[Problem]:
    limit, memory = upstream.limit, upstream.memory
    if limit.max is not None and limit.min > limit.max:
        yield ("limit", "min"), f"{limit.min} is above max {limit.max}; give at most {limit.max}"
    elif not limit.min <= limit.initial <= (limit.max or limit.initial):
        yield ("limit", "initial"), f"{limit.initial} is not between min and max; give {limit.min} to {limit.max}"
    for name, value in (("tokens", memory.tokens), ("seats", memory.seats)):
        if memory.source == name and value is None:
            yield ("memory", name), f"is missing; memory.source is {name}: give a number"
        elif memory.source != name and value is not None:
            yield ("memory", name), f"is not used, as memory.source is {memory.source}; set source: {name} or remove it"
    if memory.source == "plan" and memory.plan is None:
        yield ("memory", "plan"), "is missing; memory.source is plan: give model and accelerator"
    elif memory.source not in {"plan", "auto"} and memory.plan is not None:
        yield ("memory", "plan"), f"is not used, as memory.source is {memory.source}; set source: plan or remove it"
    if upstream.url.startswith("http:") and (upstream.tls.ca is not None or not upstream.tls.verify):
        yield ("tls",), "is set for an http URL; give an https URL or remove tls"


def _classes(settings: Settings) -> Iterator[Problem]:
    classes = settings.classes
    paths: list[Path] = [("classes", index) for index in range(len(classes))]
    yield from _repeated((((*p, "name"), c.name) for p, c in zip(paths, classes, strict=True)), "name")
    tiers = (((*p, "service_tiers"), tier) for p, c in zip(paths, classes, strict=True) for tier in c.service_tiers)
    yield from _repeated(tiers, "service tier")
    total = sum(entry.floor for entry in classes)
    if total > 1 + 1e-9:
        yield ("classes",), f"the floors sum up to {total:g}; lower them to 1 or less in all"
    highest: int | None = None
    for path, entry in zip(paths, classes, strict=True):
        if entry.priority_max is None and path != paths[-1]:
            yield (*path, "priority_max"), "null takes every priority, so lower classes get none; give a number"
        elif entry.priority_max is not None and highest is not None and entry.priority_max <= highest:
            yield (*path, "priority_max"), f"must rise from class to class; give more than {highest}"
        highest = entry.priority_max if entry.priority_max is not None else highest


def _tenants(settings: Settings) -> Iterator[Problem]:
    names = [entry.name for entry in settings.classes]
    tenants = settings.tenants
    users: list[tuple[Path, str, str]] = [
        (("tenants", "list", index), tenant.default_class, tenant.max_class)
        for index, tenant in enumerate(tenants.list)
    ]
    users.append((("tenants", "anonymous"), tenants.anonymous.default_class, tenants.anonymous.max_class))
    for path, default, highest in users:
        unknown = {"default_class": known(default, names), "max_class": known(highest, names)}
        yield from (((*path, key), text) for key, text in unknown.items() if text)
        if not any(unknown.values()) and names.index(default) < names.index(highest):
            yield (*path, "default_class"), f"{default} is above max_class {highest}; lower it or raise max_class"
    yield from _repeated(((("tenants", "list", i, "name"), t.name) for i, t in enumerate(tenants.list)), "name")
    keys = ((("tenants", "list", i, "keys"), key) for i, t in enumerate(tenants.list) for key in t.keys)
    yield from _repeated(keys, "key")
