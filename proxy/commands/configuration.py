"""`check-config`, `config schema`, `config example`, and the settings that other commands start from."""

from __future__ import annotations

import os
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from proxy.commands.base import WRONG_USE, CommandError, Commands, add_command, say, say_json, table

if TYPE_CHECKING:
    from proxy.settings import Settings


def declare(commands: Commands) -> None:
    check = add_command(
        commands, "check-config", run_check, "check a configuration file", "penstock check-config config/penstock.yaml"
    )
    check.add_argument("file", type=Path, help="YAML file; environment and secrets directory are checked with it")
    check.add_argument("--json", action="store_true", help="print the result as JSON")
    config = add_command(
        commands,
        "config",
        lambda arguments: run_config(arguments.what),
        "print the commented example, or the JSON Schema, of the configuration",
        "penstock config example > penstock.yaml\npenstock config schema > penstock.schema.json",
    )
    config.add_argument("what", choices=("example", "schema"), help="what to print")


def settings_from(path: Path | None, overrides: Mapping[str, Any]) -> Settings:
    """The settings of this process's file, environment and command line; a fault ends the command with code 2."""
    from proxy.settings import ConfigError, load

    try:
        return load(path, overrides, os.environ)
    except ConfigError as error:
        raise CommandError(*error.lines, code=WRONG_USE) from None


def run_config(what: str) -> int:
    from proxy.settings.example import example, schema

    say({"example": example, "schema": schema}[what]().rstrip("\n"))
    return 0


def run_check(arguments: Namespace) -> int:
    try:
        settings = settings_from(arguments.file, {})
    except CommandError as error:
        if arguments.json:
            say_json({"valid": False, "problems": list(error.lines)})
        raise
    if arguments.json:
        say_json({"valid": True, "hash": settings.hash(), "upstreams": [_row(entry) for entry in settings.upstreams]})
        return 0
    say(f"{arguments.file}: valid, hash {settings.hash()}")
    say(
        table(
            [("upstream", "url", "engine", "limit", "memory"), *(tuple(_row(u).values()) for u in settings.upstreams)]
        )
    )
    return 0


def _row(upstream: Any) -> dict[str, str]:
    limit = upstream.limit
    return {
        "name": upstream.name,
        "url": upstream.url,
        "engine": upstream.engine,
        "limit": f"{limit.mode}, {limit.law}" if limit.mode == "adaptive" else f"fixed at {limit.initial}",
        "memory": upstream.memory.source,
    }
