"""YAML into a layer whose origins are lines, by PyYAML's node marks. Duplicate keys and tags are refused."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path as FilePath
from typing import Any

import yaml

from proxy.settings.trees import ConfigError, Layer, Path, show

FILE_BYTES_MAX = 16 * 2**20  # ten thousand tenants are 2 MB
NODES_MAX = 1_000_000  # aliases multiply: nine lines can name a billion nodes

Loader: type[yaml.SafeLoader] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def read_text(path: FilePath, what: str) -> str:
    """The file's text, or a ConfigError that names what it was for."""
    try:
        if path.stat().st_size > FILE_BYTES_MAX:
            raise ConfigError([f"{path}: {what} is larger than {FILE_BYTES_MAX} bytes; split or shorten it"])
        return path.read_text(encoding="utf-8")
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise ConfigError([f"{path}: {what} cannot be read ({reason}); give the path of a readable file"]) from None
    except UnicodeDecodeError as error:
        raise ConfigError([f"{path}: {what} is not UTF-8 at byte {error.start}; save it as UTF-8"]) from None


def read_yaml(path: FilePath, what: str = "the configuration") -> Layer:
    """A YAML file that holds one mapping (an empty file: none)."""
    text = read_text(path, what)
    builder = _Builder(path.name)
    try:
        loader = Loader(text)
        node = loader.get_single_node()
        tree = {} if node is None else builder.value(loader, node, ())
    except yaml.MarkedYAMLError as error:
        line = f":{error.problem_mark.line + 1}" if error.problem_mark else ""
        raise ConfigError([f"{path.name}{line}: not YAML: {error.problem}; correct this line"]) from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ConfigError([f"{path.name}: not YAML: {reason}; correct the file"]) from None
    if not isinstance(tree, dict):
        builder.problems.append(f"{path.name}:1: {what} is no mapping; start with a line such as `listen:`")
    if builder.problems:
        raise ConfigError(builder.problems)
    return Layer(path.name, tree, builder.origins)


class _Builder:
    def __init__(self, file: str) -> None:
        self._file = file
        self._nodes = 0
        self.origins: dict[Path, str] = {}
        self.problems: list[str] = []

    def value(self, loader: yaml.SafeLoader, node: yaml.Node, path: Path) -> Any:
        self._nodes += 1
        if self._nodes > NODES_MAX:
            raise ValueError(f"more than {NODES_MAX} values (aliases count each time)")
        self.origins.setdefault(path, self._at(node))
        if isinstance(node, yaml.MappingNode):
            return {name: self.value(loader, value, (*path, name)) for name, value in self._pairs(node, path)}
        if isinstance(node, yaml.SequenceNode):
            return [self.value(loader, value, (*path, index)) for index, value in enumerate(node.value)]
        return loader.construct_object(node)

    def _at(self, node: yaml.Node) -> str:
        return f"{self._file}:{node.start_mark.line + 1}"

    def _pairs(self, node: yaml.MappingNode, path: Path) -> Iterator[tuple[str, yaml.Node]]:
        seen: dict[str, str] = {}
        for name_node, value in node.value:
            name, at = str(name_node.value), self._at(name_node)
            if not isinstance(name_node, yaml.ScalarNode):
                self.problems.append(f"{at}: {show(path) or 'the file'}: a key is no plain word; write `key: value`")
            elif name in seen:
                where = show((*path, name))
                self.problems.append(f"{at}: {where}: stands twice, first at {seen[name]}; keep one")
            else:
                seen[name] = at
                self.origins[(*path, name)] = at
                yield name, value
