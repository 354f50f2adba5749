"""Kinds of values that several sections share; each refusal says what to give instead."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, TypeVar
from urllib.parse import urlsplit

from pydantic import AfterValidator, StringConstraints

Item = TypeVar("Item")


def one_of_each(items: tuple[Item, ...]) -> tuple[Item, ...]:
    twice = [item for index, item in enumerate(items) if item in items[:index]]
    if twice:
        raise ValueError(f"{twice[0]} stands there twice; remove one")
    return items


def network(text: str) -> str:
    """An address or a network in CIDR form, as written."""
    try:
        ipaddress.ip_network(text, strict=False)
    except ValueError:
        raise ValueError("is no address or network; give for example 10.0.0.0/8") from None
    return text


def header_name(text: str) -> str:
    """Lower case: that is how names are compared. RFC 9110 token, without `_` (many gateways drop such names)."""
    if not re.fullmatch(r"[a-z0-9-]{1,64}", text.lower()):
        raise ValueError("is no header name; give letters, digits and '-', for example x-tenant-id")
    return text.lower()


def upstream_url(text: str) -> str:
    """scheme://host[:port] of an engine, without the slash at its end."""
    try:
        parts = urlsplit(text)
        whole = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        whole = False
    if not whole or not text.isascii() or not text.isprintable() or " " in text:
        raise ValueError("is no URL of an engine; give for example http://127.0.0.1:8000")
    if parts.username is not None:
        raise ValueError("holds a user name; give the engine's key as api_key instead")
    if parts.path not in {"", "/"} or parts.query or parts.fragment:
        raise ValueError(f"has a path; give only {parts.scheme}://host:port, each route brings its own path")
    return text.rstrip("/")


def key_hash(text: str) -> str:
    if not re.fullmatch(r"sha256:[0-9a-f]{64}", text):
        raise ValueError("is no SHA-256 line; make one with: penstock keys hash")
    return text


def label(what: str, pattern: str) -> AfterValidator:
    """Text that is used in headers, paths and metric labels: short, printable, without white space."""

    def check(text: str) -> str:
        if not re.fullmatch(pattern, text):
            raise ValueError(f"is no {what}; give up to 64 letters, digits and . _ - (first a letter or digit)")
        return text

    return AfterValidator(check)


def known(name: str, names: Iterable[str]) -> str:
    """Problem text for a class name that is not declared, or nothing."""
    names = list(names)
    return "" if name in names else f"no class is called {name!r}; give one of {', '.join(names)}"


Network = Annotated[str, AfterValidator(network)]
HeaderName = Annotated[str, AfterValidator(header_name)]
UpstreamUrl = Annotated[str, AfterValidator(upstream_url)]
KeyHash = Annotated[str, AfterValidator(key_hash)]
ClassName = Annotated[str, label("class name", r"[a-z0-9][a-z0-9._-]{0,63}")]
Name = Annotated[str, label("name", r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")]
ModelName = Annotated[str, StringConstraints(min_length=1, max_length=256)]
FilePath = Path
