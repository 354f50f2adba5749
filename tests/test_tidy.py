"""The repository keeps its own rules: floors, purity, size, names, one test file per module."""

from __future__ import annotations

import ast
import re
import statistics
import subprocess
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

ROOT = Path(__file__).parent.parent
FLOOR_OF_ROOM = {
    **dict.fromkeys(("types", "native"), 0),
    **dict.fromkeys(("admission", "routing", "wire", "planning"), 1),
    **dict.fromkeys(("dispatcher", "simulator", "loadtest"), 2),
    **dict.fromkeys(("settings", "adapters", "laboratory"), 3),
    "server": 4,
    **dict.fromkeys(("cli", "commands", "__main__"), 5),
}
SHELL_OF_PURE_ROOMS = re.compile(r"proxy\.(simulator\.server|loadtest(\.client|$))")  # floor 4
IMPURE = {"asyncio", "datetime", "logging", "multiprocessing", "os", "selectors", "signal", "socket", "ssl"} | {
    "prometheus_client", "structlog", "subprocess", "threading", "time", "urllib", "uvloop"
}  # fmt: skip
PYTHON = sorted(path for folder in ("proxy", "tests", "grafana") for path in (ROOT / folder).rglob("*.py"))


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


TREES = {path: ast.parse(path.read_text(encoding="utf-8")) for path in PYTHON}
MODULES = {module_name(path): tree for path, tree in TREES.items() if path.is_relative_to(ROOT / "proxy")}


def room(module: str) -> str:
    return module.split(".")[1] if "." in module else ""


def floor(module: str) -> int:
    """0 to 5; the package itself holds only its map and version, and is below everything."""
    if module == "proxy":
        return -1
    return 4 if SHELL_OF_PURE_ROOMS.match(module) else FLOOR_OF_ROOM[room(module)]


def imports(tree: ast.AST) -> Iterator[str]:
    """Every imported module, and `module.name` for each name of a from-import (it may be a module itself)."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"relative import of {node.module}"
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def calls(tree: ast.AST) -> Iterator[tuple[str, ast.Call]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), node


def functions(tree: ast.AST) -> Iterator[tuple[str, int]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.name, (node.end_lineno or 0) - node.lineno + 1


def own(tree: ast.AST) -> set[str]:
    return {name for name in imports(tree) if name in MODULES}


def test_imports_look_down_and_rooms_on_one_floor_do_not_know_one_another() -> None:
    wrong = [
        f"{module} imports {target}"
        for module, tree in MODULES.items()
        for target in own(tree)
        if floor(target) > floor(module) or (floor(target) == floor(module) != 5 and room(target) != room(module))
    ]
    assert not wrong


def test_there_is_no_import_cycle() -> None:
    graph = {module: own(tree) - {module, "proxy"} for module, tree in MODULES.items()}
    assert list(TopologicalSorter(graph).static_order())


def impurities(module: str, tree: ast.AST) -> Iterator[str]:
    own = {"wire": {"orjson"}, "native": {"mypy_extensions"}}
    allowed = set(sys.stdlib_module_names) - IMPURE | {"proxy"} | own.get(room(module), set())
    for name in imports(tree):
        if name.split(".")[0] not in allowed:
            yield f"import {name}"
    for name, node in calls(tree):
        draws = name.startswith("random.") and not (name == "random.Random" and node.args)
        if name in {"open", "print", "input"} or draws or name.endswith((".read_text", ".read_bytes", ".write_text")):
            yield f"{name}()"
    for part in ast.walk(tree):
        if isinstance(part, ast.AsyncFunctionDef | ast.Await | ast.AsyncFor | ast.AsyncWith):
            yield "async"
        elif isinstance(part, ast.ImportFrom) and part.module == "random":
            yield from (f"random.{alias.name}" for alias in part.names if alias.name != "Random")


def test_floors_0_to_2_and_the_laboratory_are_pure() -> None:
    assert not [
        f"{module}: {what}"
        for module, tree in MODULES.items()
        if 0 <= floor(module) <= 2 or room(module) == "laboratory"
        for what in impurities(module, tree)
    ]


def test_everything_fits_a_screen() -> None:
    long = [f"{path}: {name} has {size}" for path, tree in TREES.items() for name, size in functions(tree) if size > 70]
    long += [str(path) for path in PYTHON if path.read_text(encoding="utf-8").count("\n") > 400]
    assert not long
    sizes = [size for module, tree in MODULES.items() if 0 <= floor(module) <= 2 for _, size in functions(tree)]
    assert statistics.median([0, *sizes]) <= 10


def test_every_module_has_a_test_file_of_its_name() -> None:
    names = {path.relative_to(ROOT / "tests") for path in PYTHON if path.name.startswith("test_")}
    have = {(path.parts[0] if len(path.parts) > 1 else "", path.stem) for path in names}
    missing = []
    for path, tree in TREES.items():  # a module that only declares data has nothing to test
        if path.is_relative_to(ROOT / "proxy") and not path.stem.startswith("__") and any(functions(tree)):
            parts = path.relative_to(ROOT / "proxy").with_suffix("").parts
            if (parts[0] if len(parts) > 1 else "", f"test_{parts[-1]}") not in have:
                missing.append("/".join(parts))
    assert not missing


def test_tests_do_not_sleep_and_tasks_have_one_maker() -> None:
    wrong = []
    for path, tree in TREES.items():
        place = path.relative_to(ROOT).as_posix()
        for name, node in calls(tree):
            last, yields = name.rsplit(".", 1)[-1], ast.unparse(node).endswith("sleep(0)")
            at = f"{place}:{node.lineno} {name}"
            if place.startswith("tests/") and last == "sleep" and not yields:
                wrong += [] if place.startswith(("tests/e2e/", "tests/benchmarks/")) else [at]
            elif place.startswith("proxy/") and (
                last in {"create_task", "ensure_future"} or name == "asyncio.wait_for"
            ):
                wrong += [] if place == "proxy/adapters/tasks.py" else [at]
    assert not wrong


def test_every_metric_on_a_board_or_in_an_alert_is_declared() -> None:
    suffix = re.compile(r"_(total|bucket|sum|count|created|info)$")
    used = {
        (path.name, suffix.sub("", name))
        for folder in ("grafana", "config/prometheus")
        for path in (ROOT / folder).rglob("*")
        if path.suffix in {".json", ".yml", ".yaml", ".py"}
        for name in re.findall(r"\bpenstock_[a-z0-9_]+(?![a-z0-9_]*:)", path.read_text(encoding="utf-8"))
    }
    declared = {
        suffix.sub("", node.value)
        for path in (ROOT / "proxy/adapters").glob("metrics*.py")
        for node in ast.walk(TREES[path])
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }
    unknown = {(file, name) for file, name in used if not {name, name.removeprefix("penstock_")} & declared}
    assert not unknown


def tracked() -> list[Path]:
    listing = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=False)
    return [ROOT / name for name in listing.stdout.decode().split("\0") if name] or PYTHON


def test_no_machine_path_and_no_package_address_is_tracked() -> None:
    bad = re.compile(
        r"(?<![\w./-])/(?:work|root|home|Users)/\w|https?://\S+\.(?:whl|tar\.gz|tgz|deb)\b"
        r"|https?://\S+/simple\b|(?:index-ur[l]|find-link[s])\b|pythonhosted"
    )
    texts = {path: path.read_bytes().decode("utf-8", "replace") for path in tracked() if path.is_file()}
    found = {str(path): hit[0] for path, text in texts.items() if path != Path(__file__) and (hit := bad.search(text))}
    assert not found
