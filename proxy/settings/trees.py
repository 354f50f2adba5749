"""Raw configuration as trees that remember where each value stands, and their merging.

A tree is what YAML gives: mappings, lists, scalars. A layer is a tree with the origin of its values by path. A higher
layer's mappings merge into lower ones; a mapping of indexes (`{0: {url: ...}}`, from the environment) merges into a
list entry by entry; anything else replaces what is below.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

Path = tuple[str | int, ...]


class ConfigError(Exception):
    """The configuration is wrong: `lines` has one message each, with place, key path and remedy. Never a secret."""

    def __init__(self, lines: list[str]) -> None:
        super().__init__("; ".join(lines))
        self.lines = lines


@dataclass(slots=True)
class Layer:
    """`origins` maps a path to words such as `penstock.yaml:12` or `environment PENSTOCK_LISTEN__PORT`."""

    name: str
    tree: dict[str, Any] = field(default_factory=dict)
    origins: dict[Path, str] = field(default_factory=dict)

    def origin(self, path: Path) -> str:
        """Where the value stands, or the nearest thing around it; empty for a default."""
        for end in range(len(path), 0, -1):
            if path[:end] in self.origins:
                return self.origins[path[:end]]
        return ""


def put(tree: Any, path: Path, value: Any) -> None:
    """Places a value in nested mappings; an index is a key until it meets its list in `merge`."""
    for part in path[:-1]:
        tree = tree.setdefault(part, {})
    tree[path[-1]] = value


def show(path: Path) -> str:
    return ".".join(str(part) for part in path)


def merge(low: Layer, high: Layer, defaults: Mapping[str, Any]) -> Layer:
    """`high` over `low`. `defaults` gives the lists that an index may point into when `low` has none."""
    problems: list[str] = []
    tree = _over(low.tree, high.tree, defaults, (), problems)
    if problems:
        raise ConfigError([f"{high.name}: {line}" for line in problems])
    replaced = set(_replaced(high.tree, ()))
    kept = {
        path: at for path, at in low.origins.items() if not any(path[:n] in replaced for n in range(1, len(path) + 1))
    }
    return Layer(low.name, tree, kept | high.origins)


def _is_index_map(value: Any) -> bool:
    return isinstance(value, dict) and bool(value) and all(isinstance(part, int) for part in value)


def _over(low: Any, high: Any, default: Any, path: Path, problems: list[str]) -> Any:
    if _is_index_map(high):
        base = low if isinstance(low, list) else list(default or ()) if low is None else []
        return _over_list(base, high, path, problems)
    if isinstance(high, dict) and (isinstance(low, dict) or low is None):
        low = low or {}
        inner = default if isinstance(default, Mapping) else {}
        return low | {k: _over(low.get(k), v, inner.get(k), (*path, k), problems) for k, v in high.items()}
    return high


def _over_list(low: list[Any], high: dict[int, Any], path: Path, problems: list[str]) -> list[Any]:
    merged = list(low)
    for index in sorted(high):
        if index > len(merged):
            problems.append(f"{show((*path, index))}: the list has {len(merged)} entries; give {len(merged)} next")
            break
        old = merged[index] if index < len(merged) else None
        merged[index : index + 1] = [_over(old, high[index], None, (*path, index), problems)]
    return merged


def _replaced(high: Any, path: Path) -> Iterator[Path]:
    """Paths at which `high` puts a scalar or a whole list: origins below them no longer hold."""
    if isinstance(high, dict):
        for part, value in high.items():
            yield from _replaced(value, (*path, part))
    else:
        yield path
