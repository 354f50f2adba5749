"""The commented example configuration and the JSON Schema, both made from the settings model."""

from __future__ import annotations

import json
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo

from proxy.settings.root import Settings
from proxy.settings.tenants import Tenant, Tenants
from proxy.settings.upstreams import Memory, Plan, Upstream

WIDTH = 100
HEAD = """\
# Penstock configuration: every key with its unit, bounds and default. Made by: penstock config example
# Check a file with: penstock check-config FILE. Relative paths are meant from this file's folder.
# Every key is also an environment variable (listen.port is PENSTOCK_LISTEN__PORT, the first upstream's address is
# PENSTOCK_UPSTREAMS__0__URL) and a file of that name in the directory that PENSTOCK_SECRETS_DIR names.
# Precedence: command line > environment > secrets directory > this file > default.
"""
UPSTREAM = Upstream(name="vllm-0", url="http://127.0.0.1:8000")
TENANT = Tenant(name="acme", keys=("sha256:" + 64 * "0",))
PLAN = Plan(model="model/config.json", accelerator="h100-sxm")
BOUNDS = (("ge", "from "), ("gt", "above "), ("le", "to "), ("lt", "below "))


def example() -> str:
    """YAML text that loads to the defaults, with one upstream at vLLM's usual address."""
    settings = Settings(upstreams=(UPSTREAM,))
    return HEAD + "\n".join(_section(settings, "")) + "\n"


def schema() -> str:
    """JSON Schema of the file, for editors: `# yaml-language-server: $schema=FILE` in its first line."""
    return json.dumps(Settings.model_json_schema(), indent=2) + "\n"


def _section(model: BaseModel, indent: str) -> Iterator[str]:
    """The lines of one mapping; what stands at the top level is set apart by an empty line."""
    for name, field in type(model).model_fields.items():
        value = getattr(model, name)
        if not indent:
            yield ""
        if isinstance(value, BaseModel):
            yield f"{indent}{name}:  # {field.description}"
            yield from _section(value, indent + "  ")
        elif isinstance(value, tuple) and value and isinstance(value[0], BaseModel):
            yield f"{indent}{name}:  # {field.description}"
            yield from _entries(value, indent + "  ")
        else:
            yield from _key(name, field, value, indent)
    if isinstance(model, Tenants):
        yield f"{indent}# an entry of the list or of the file:"
        yield from (f"{indent}# {line}" for line in _entries((TENANT,), ""))
    elif isinstance(model, Memory):
        yield f"{indent}# a plan:"
        yield f"{indent}# plan:"
        yield from (f"{indent}# {line}" for line in _section(PLAN, "  "))


def _entries(models: tuple[BaseModel, ...], indent: str) -> Iterator[str]:
    """The first entry in full, each key with its help; the others one line each."""
    lines = [line.removeprefix(indent + "  ") for line in _section(models[0], indent + "  ")]
    first = next(index for index, line in enumerate(lines) if not line.startswith("#"))
    for index, line in enumerate(lines):
        yield f"{indent}{'- ' if index == first else '  '}{line}"
    for model in models[1:]:
        inner = ", ".join(f"{name}: {_text(getattr(model, name))}" for name in type(model).model_fields)
        yield f"{indent}- {{{inner}}}"


def _key(name: str, field: FieldInfo, value: Any, indent: str) -> Iterator[str]:
    default = "required" if field.is_required() else f"default {_text(field.default)}"
    choices = ", ".join(map(str, _choices(field.annotation)))
    helps = [field.description or "", f"one of {choices}" if choices else _bounds(field), default]
    told = "; ".join(filter(None, helps))
    line = f"{indent}{name}: {_text(value)}"
    if name == "allowed":
        line = f"{indent}# {name}: {_text(value)}"  # its default depends on what else is given
    if len(line) + len(told) > WIDTH:
        yield f"{indent}# {told}"
        yield line
    else:
        yield f"{line}  # {told}"


def _text(value: Any) -> str:
    """A value as flow YAML."""
    if isinstance(value, tuple):
        return f"[{', '.join(map(_text, value))}]"
    if isinstance(value, SecretStr | Path):
        return json.dumps(str(value))
    if isinstance(value, str):
        plain = value.replace("-", "").replace("_", "").isalnum() and not value.isdigit()
        return value if plain else json.dumps(value)
    if isinstance(value, float) and value.is_integer() and abs(value) >= 2:
        return str(int(value))
    return json.dumps(value)


def _bounds(field: FieldInfo) -> str:
    found = {name: getattr(rule, name) for rule in field.metadata for name, _ in BOUNDS if hasattr(rule, name)}
    return " ".join(f"{word}{_text(found[name])}" for name, word in BOUNDS if name in found)


def _choices(annotation: Any) -> tuple[Any, ...]:
    return typing.get_args(annotation) if typing.get_origin(annotation) is typing.Literal else ()
