"""Reads the configuration: command line > environment > secrets directory > YAML file > default."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from proxy.settings.checks import is_loopback, problems
from proxy.settings.environment import environment_layer, secrets_layer
from proxy.settings.problems import line, lines
from proxy.settings.root import Settings
from proxy.settings.trees import ConfigError, Layer, merge
from proxy.settings.yaml_file import read_text, read_yaml

FILES = (("listen", "tls", "cert"), ("listen", "tls", "key"), ("admin", "token_file"), ("tenants", "file"))


def load(path: Path | None, overrides: Mapping[str, Any], environ: Mapping[str, str]) -> Settings:
    """The checked settings. `overrides` is a tree like the file's. Paths in the file are relative to it.

    Raises ConfigError with one line for each fault.
    """
    layer = merged(path, overrides, environ)
    folder = path.parent if path else Path()
    _resolve_files(layer.tree, folder)
    _add_tenants(layer)
    _add_token(layer)
    try:
        settings = Settings(**layer.tree)
    except ValidationError as error:
        raise ConfigError(lines(Settings, error, layer)) from None
    wrong = [line(layer, at, text) for at, text in problems(settings)]
    if wrong:
        raise ConfigError(wrong)
    return _guarded(settings)


def merged(path: Path | None, overrides: Mapping[str, Any], environ: Mapping[str, str]) -> Layer:
    """The raw tree of all sources, with the origin of each value."""
    layer = read_yaml(path) if path else Layer("defaults")
    defaults = Settings().model_dump()
    for higher in (
        secrets_layer(Settings, environ),
        environment_layer(Settings, environ),
        Layer("command line", dict(overrides), {(name,): "command line" for name in overrides}),
    ):
        layer = merge(layer, higher, defaults)
    return layer


def _at(tree: Any, path: tuple[str, ...]) -> Any:
    for part in path:
        tree = tree.get(part) if isinstance(tree, dict) else None
    return tree


def _resolve_files(tree: dict[str, Any], folder: Path) -> None:
    """Relative paths are meant from the configuration file's folder, whatever the working directory."""
    places = [(_at(tree, path[:-1]), path[-1]) for path in FILES]
    upstreams = tree.get("upstreams")
    for upstream in upstreams if isinstance(upstreams, list) else []:
        places.append((_at(upstream, ("tls",)), "ca"))
        plan = _at(upstream, ("memory", "plan"))
        if str(_at(plan, ("model",))).endswith(".json"):
            places.append((plan, "model"))
    for section, name in places:
        if isinstance(section, dict) and isinstance(section.get(name), str):
            section[name] = str(folder / section[name])


def _add_tenants(layer: Layer) -> None:
    """Appends the tenants of `tenants.file` to the list, so that one set of rules holds for both."""
    place = _at(layer.tree, ("tenants", "file"))
    if not isinstance(place, str):
        return
    file = read_yaml(Path(place), "the tenants file")
    entries = file.tree.get("tenants")
    if set(file.tree) != {"tenants"} or not isinstance(entries, list):
        raise ConfigError([f"{file.name}: the tenants file holds one list; start it with `tenants:`"])
    section = layer.tree["tenants"]
    listed = section.get("list") or []
    if not isinstance(listed, list):
        return  # the model refuses it
    for path, origin in file.origins.items():
        if len(path) > 1 and isinstance(path[1], int):
            layer.origins["tenants", "list", len(listed) + path[1], *path[2:]] = origin
    section["list"] = listed + entries


def _add_token(layer: Layer) -> None:
    place = _at(layer.tree, ("admin", "token_file"))
    if not isinstance(place, str):
        return
    if _at(layer.tree, ("admin", "token")) is not None:
        raise ConfigError([line(layer, ("admin", "token_file"), "is given beside admin.token; keep one")])
    layer.tree["admin"]["token"] = read_text(Path(place), "the admin token").strip()


def _guarded(settings: Settings) -> Settings:
    """A listener that others reach serves no stranger once tenants are defined, unless the file says so itself."""
    tenants = settings.tenants
    said = "allowed" in tenants.anonymous.model_fields_set
    if said or not tenants.list or is_loopback(settings.listen.host):
        return settings
    closed = tenants.anonymous.model_copy(update={"allowed": False})
    return settings.model_copy(update={"tenants": tenants.model_copy(update={"anonymous": closed})})
