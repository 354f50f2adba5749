"""Settings from environment variables and from a directory of secrets: both are names with text.

`PENSTOCK_LISTEN__PORT` is `listen.port`, `PENSTOCK_UPSTREAMS__0__URL` an entry of a list; a list or mapping as a whole
is given in YAML or JSON. A name without `__` that is no top-level key is not ours: Kubernetes sets `PENSTOCK_PORT` and
the like for a service called penstock. Empty variables count as not given (compose files pass them on).
"""

from __future__ import annotations

import typing
from collections.abc import Iterable, Mapping
from pathlib import Path as FilePath
from types import UnionType
from typing import Any

import yaml
from pydantic import BaseModel

from proxy.settings.trees import ConfigError, Layer, Path, put
from proxy.settings.yaml_file import read_text

PREFIX = "PENSTOCK_"
SECRETS_DIR = "PENSTOCK_SECRETS_DIR"


def environment_layer(root: type[BaseModel], environ: Mapping[str, str]) -> Layer:
    named = [
        (name.removeprefix(PREFIX), f"environment {name}", value)
        for name, value in sorted(environ.items())
        if name.startswith(PREFIX) and name != SECRETS_DIR and value != ""
    ]
    return _layer(root, named, "the environment")


def secrets_layer(root: type[BaseModel], environ: Mapping[str, str]) -> Layer:
    """Files of `PENSTOCK_SECRETS_DIR` named like variables, the prefix optional: `admin__token`."""
    place = environ.get(SECRETS_DIR, "")
    if not place:
        return Layer("no secrets")
    folder = FilePath(place)
    try:
        files = sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))
    except OSError:
        remedy = f"create it or unset {SECRETS_DIR}"
        raise ConfigError([f"environment {SECRETS_DIR}: {place} is no readable directory; {remedy}"]) from None
    named = [
        (path.name.upper().removeprefix(PREFIX), f"secret {path.name}", read_text(path, "the secret").rstrip("\r\n"))
        for path in files
        if path.name.upper().startswith(PREFIX) or "__" in path.name
    ]
    return _layer(root, named, "the secrets directory")


def _layer(root: type[BaseModel], named: Iterable[tuple[str, str, str]], where: str) -> Layer:
    layer = Layer(where)
    problems = []
    for name, origin, text in named:
        words = name.lower().split("__")
        if len(words) == 1 and words[0] not in root.model_fields:
            continue
        path, kind = _resolve(root, words)
        if kind is None:
            problems.append(f"{origin}: no key is called {'.'.join(words)}; see: penstock config example")
            continue
        try:
            put(layer.tree, path, _value(kind, text))
        except (yaml.YAMLError, AttributeError, TypeError):
            problems.append(f"{origin}: does not fit its key or a shorter variable; give JSON, or entries one by one")
        layer.origins[path] = origin
    if problems:
        raise ConfigError(problems)
    return layer


def _resolve(root: type[BaseModel], words: list[str]) -> tuple[Path, Any]:
    """The path and its annotation; None where no such key exists."""
    kind: Any = root
    path: list[str | int] = []
    for word in words:
        model, item = _model(kind), _item(kind)
        if model is not None and word in model.model_fields:
            kind = model.model_fields[word].annotation
            path.append(word)
        elif item is not None and word.isascii() and word.isdigit() and len(word) < 6:
            kind = item
            path.append(int(word))
        else:
            return tuple(path), None
    return tuple(path), kind


def _members(kind: Any) -> list[Any]:
    """The alternatives of a union, without their Annotated wrapping."""
    origin = typing.get_origin(kind)
    if origin is typing.Annotated:
        return _members(typing.get_args(kind)[0])
    if origin in {typing.Union, UnionType}:
        return [member for choice in typing.get_args(kind) for member in _members(choice)]
    return [kind]


def _model(kind: Any) -> type[BaseModel] | None:
    return next((m for m in _members(kind) if isinstance(m, type) and issubclass(m, BaseModel)), None)


def _item(kind: Any) -> Any:
    return next((typing.get_args(m)[0] for m in _members(kind) if typing.get_origin(m) is tuple), None)


def _value(kind: Any, text: str) -> Any:
    """Text as it stands, except for `null` where it is allowed and lists and mappings, which are YAML."""
    if text == "null" and type(None) in _members(kind):
        return None
    compound = _model(kind) is not None or _item(kind) is not None
    return yaml.safe_load(text) if compound and text.lstrip()[:1] in {"[", "{"} else text
