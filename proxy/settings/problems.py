"""What is wrong with a configuration, one line each: place, key path, fault, remedy. Values of secrets never appear."""

from __future__ import annotations

import difflib
import typing
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ValidationError

from proxy.settings.trees import Layer, Path, show

SECRET_KEYS = {"token", "api_key", "keys"}
NAMED_VALUES = {"models": "give auto or a list of names", "shared_by": "give auto or a whole number from 1 to 1000"}
BOUNDS = {
    "greater_than": ("gt", "give more than {}"),
    "greater_than_equal": ("ge", "give {} or more"),
    "less_than": ("lt", "give less than {}"),
    "less_than_equal": ("le", "give at most {}"),
    "string_too_short": ("min_length", "give at least {} characters"),
    "string_too_long": ("max_length", "give at most {} characters"),
    "too_short": ("min_length", "give at least {} entries"),
    "too_long": ("max_length", "give at most {} entries"),
    "literal_error": ("expected", "give one of {}"),
}
KINDS = {
    "bool": "give true or false",
    "int": "give a whole number",
    "float": "give a number",
    "finite": "give a finite number",
    "string": "give text (in quotes if it looks like a number)",
    "path": "give a path",
    "tuple": "give a list: [a, b] or one `- entry` a line",
    "model": "give a mapping: key: value",
    "dict": "give a mapping: key: value",
}


def lines(root: type[BaseModel], error: ValidationError, layer: Layer) -> list[str]:
    """All faults that the model found, in the order of the keys; alternatives of one key make one line."""
    told: dict[Path, str] = {}
    for fault in error.errors(include_url=False):
        path = _path(root, fault["loc"])
        told.setdefault(path, _told(root, path, fault))
    return [line(layer, path, text) for path, text in told.items()]


def line(layer: Layer, path: Path, text: str) -> str:
    origin = layer.origin(path)
    return f"{origin}: {show(path)}: {text}" if origin else f"{show(path)}: {text}"


def model_at(root: Any, path: Path) -> Any:
    """The annotation at `path`, with optional and tuple wrapping removed, or None."""
    kind = root
    for part in path:
        model = _inner(kind)
        if isinstance(part, int):
            kind = typing.get_args(model)[0] if typing.get_origin(model) is tuple else None
        else:
            fields = getattr(model, "model_fields", {})
            kind = fields[part].annotation if part in fields else None
    return _inner(kind)


def _inner(kind: Any) -> Any:
    """The model or tuple inside an optional or annotated type, else the type itself."""
    if typing.get_origin(kind) is tuple or (isinstance(kind, type) and issubclass(kind, BaseModel)):
        return kind
    found = (_inner(choice) for choice in typing.get_args(kind) if typing.get_origin(kind) is not typing.Literal)
    return next((inner for inner in found if inner is not None), None)


def _path(root: type[BaseModel], loc: tuple[int | str, ...]) -> Path:
    """Without the names of union alternatives that pydantic adds at the end of a location."""
    path: Path = ()
    for part in loc:
        fields: Mapping[str, Any] = getattr(model_at(root, path), "model_fields", {})
        unknown = part not in fields and not isinstance(part, int)
        if unknown and not fields:
            break
        path = (*path, part)
    return path


def _told(root: type[BaseModel], path: Path, fault: Any) -> str:
    kind, context = fault["type"], fault.get("ctx", {})
    name = next((part for part in reversed(path) if isinstance(part, str)), "")
    got = fault.get("input")
    secret = SECRET_KEYS & set(map(str, path)) or "@" in str(got)  # a URL may hold a password
    plain = isinstance(got, str | int | float) and not secret and len(str(got)) <= 80
    shown = f"{got!r} does not fit" if plain else "does not fit"
    if kind == "extra_forbidden":
        return _unknown_key(root, path)
    if kind == "missing":
        return "is missing; add it"
    if kind == "value_error":
        return f"{got!r} {context['error']}" if plain else str(context["error"])
    if name in NAMED_VALUES:
        return f"{shown}; {NAMED_VALUES[name]}"
    if kind in BOUNDS:
        bound, remedy = BOUNDS[kind]
        edge = context[bound]
        return f"{shown}; {remedy.format(f'{edge:g}' if isinstance(edge, float) else edge)}"
    return f"{shown}; {KINDS.get(kind.split('_')[0], fault['msg'])}"


def _unknown_key(root: type[BaseModel], path: Path) -> str:
    names = list(getattr(model_at(root, path[:-1]), "model_fields", {}))
    near = difflib.get_close_matches(str(path[-1]), names, n=1)
    return f"no such key; did you mean {near[0]}?" if near else f"no such key; known here: {', '.join(names)}"
