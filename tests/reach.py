"""Which tests can tell nothing new of the compiled package, so that `make test-compiled` leaves them out.

A file of tests is interpreted when nothing that importing it loads is compiled (its helpers, what it tests, the
packages around both, whatever they import in turn) and none of that starts another Python, where more might be loaded.
What it runs is then the same source in a checkout and in an install. That an install is whole and finds its data is
for `tests/test_packaging.py` and `tests/test_compiled.py` to say.
"""

from __future__ import annotations

import ast
import tomllib
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

from hatch_build import modules_of

ROOT = Path(__file__).parent.parent
HATCH = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["hatch"]["build"]
LISTED = modules_of(ROOT, HATCH["targets"]["wheel"]["hooks"]["custom"]["modules"])
ASKING = Path(__file__)  # loaded by the conftest of all tests, and what it imports with it
UNSEEN = {"executable", "import_module", "__import__", "ProcessPoolExecutor", "multiprocessing", "runpy"}


def named(name: str) -> Iterator[str]:
    """What importing `a.b.c` loads: `a`, `a.b` and `a.b.c`."""
    parts = name.split(".")
    return (".".join(parts[:end]) for end in range(1, len(parts) + 1))


@cache
def read(path: Path, package: tuple[str, ...]) -> tuple[frozenset[str], frozenset[str]]:
    """Names that a file of a package imports anywhere, its functions included, and all names that it uses."""
    imported: set[str] = set()
    used: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        match node:
            case ast.Import(names=aliases):
                imported.update(alias.name for alias in aliases)
            case ast.ImportFrom(module=module, names=aliases, level=level):
                above = package[: len(package) + 1 - level] if level else ()
                start = [*above, *([module] if module else [])]
                imported.update(".".join([*start, alias.name]) for alias in aliases)
            case ast.Name(id=name) | ast.Attribute(attr=name):
                used.add(name)
    parts = frozenset(part for name in imported for part in name.split("."))
    return frozenset(one for name in imported for one in named(name)), parts | used


class Reach:
    """What files load of a tree of sources."""

    def __init__(self, root: Path, compiled: Iterable[str]) -> None:
        self.root = root
        self.compiled = {root / name for name in compiled}
        self.ours = {path.name.removesuffix(".py") for path in root.iterdir()}
        self._loads: dict[Path, list[Path]] = {}

    def read(self, path: Path) -> tuple[frozenset[str], frozenset[str]]:
        return read(path, path.relative_to(self.root).parent.parts)

    def loads(self, path: Path) -> list[Path]:
        """The files of the tree that a file imports."""
        if path not in self._loads:
            names = (name for name in self.read(path)[0] if name.split(".")[0] in self.ours)
            places = (self.root / name.replace(".", "/") for name in names)
            choices = (choice for place in places for choice in (place.with_suffix(".py"), place / "__init__.py"))
            self._loads[path] = [choice for choice in choices if choice.is_file()]
        return self._loads[path]

    def loaded(self, test_file: Path) -> set[Path]:
        """All files of the tree that a file of tests loads, itself and the conftests of its folders among them."""
        folders = [folder for folder in test_file.parents if folder.is_relative_to(self.root)]
        around = (folder / name for folder in folders for name in ("conftest.py", "__init__.py"))
        waiting, seen = [test_file, *filter(Path.is_file, around)], set[Path]()
        while waiting:
            path = waiting.pop()
            if path not in seen and path != ASKING:
                seen.add(path)
                waiting += self.loads(path)
        return seen

    def interpreted(self, test_file: Path) -> bool:
        found = self.loaded(test_file)
        return not found & self.compiled and not any(self.read(path)[1] & UNSEEN for path in found)


HERE = Reach(ROOT, LISTED)


@cache
def interpreted(test_file: Path) -> bool:
    """Of a file of this repository."""
    return HERE.interpreted(test_file)
