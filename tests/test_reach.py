"""`make test-compiled` leaves out what loads nothing compiled, and nothing else."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.children import ROOT, environ
from tests.reach import HERE, LISTED, Reach

FILES = sorted((ROOT / "tests").rglob("test_*.py"))
LEFT_OUT = [path for path in FILES if HERE.interpreted(path)]

TREE = {
    "p/__init__.py": "",
    "p/native.py": "import time",
    "p/plain.py": "import json",
    "p/above.py": "from p import native",
    "p/lazy.py": "def run():\n    import p.native",
    "p/starts.py": "import sys\ncommand = [sys.executable, '-m', 'p']",
    "p/room/__init__.py": "from p.room.front import Front",
    "p/room/front.py": "from ..native import time",
    "p/room/pure.py": "from . import figures",
    "p/room/figures.py": "",
    "t/__init__.py": "",
    "t/helper.py": "import p.above",
    "t/served/conftest.py": "from p.native import time",
}
KEPT = [
    "import p.native",
    "from p import native",
    "from p.native import time",
    "import p.above",
    "def test() -> None:\n    from p.lazy import run",
    "from t.helper import p",
    "from .helper import p",
    "from . import helper",
    "from p.room.pure import figures",  # its package loads p.room.front
    "import p.starts",
    "import importlib\nimportlib.import_module('p.native')",
    "from importlib import import_module as load\nload('p.native')",
    "from concurrent.futures import ProcessPoolExecutor",
]


@pytest.fixture
def tree(tmp_path: Path) -> Reach:
    for name, text in TREE.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return Reach(tmp_path, ["p/native.py"])


@pytest.mark.parametrize("text", KEPT)
def test_a_test_that_may_load_what_is_compiled_is_kept(tree: Reach, text: str) -> None:
    path = tree.root / "t/test_it.py"
    path.write_text(text)
    assert not tree.interpreted(path)


@pytest.mark.parametrize("text", ["", "import p", "import p.plain\nfrom p.plain import json", "import native"])
def test_a_test_that_cannot_is_left_out(tree: Reach, text: str) -> None:
    path = tree.root / "t/test_it.py"
    path.write_text(text)
    assert tree.interpreted(path)


def test_what_the_conftest_of_a_folder_loads_counts_for_its_tests(tree: Reach) -> None:
    path = tree.root / "t/served/test_it.py"
    path.write_text("")
    assert not tree.interpreted(path)


@pytest.mark.parametrize("module", LISTED)
def test_every_module_that_is_compiled_is_tested_again_by_its_own_test_file(module: str) -> None:
    own = [path for path in FILES if path.name == f"test_{Path(module).name}"]
    kept = [path for path in own if path not in LEFT_OUT and ROOT / module in HERE.loaded(path)]
    assert kept or not own


def test_whole_rooms_are_left_out_and_no_room_that_is_compiled() -> None:
    rooms = {path.parent.name for path in LEFT_OUT}
    assert {"planning", "simulator"} <= rooms
    assert not rooms & {"admission", "routing", "dispatcher", "laboratory", "simulation", "e2e"}


@pytest.mark.compiled
def test_importing_all_that_is_left_out_loads_nothing_compiled() -> None:
    names = [".".join(path.relative_to(ROOT).with_suffix("").parts) for path in LEFT_OUT]
    code = "import importlib, sys; [importlib.import_module(name) for name in sys.argv[1:]]; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-P", "-c", code, *names], env=environ(), cwd=ROOT.anchor,
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    loaded = set(done.stdout.split())
    assert set(names) <= loaded
    assert not loaded & {name.removesuffix(".py").replace("/", ".") for name in LISTED}


@pytest.mark.source
def test_pytest_knows_them_by_their_mark() -> None:
    files = [f"tests/wire/test_{name}.py" for name in ("trace_context", "headers")]
    command = [sys.executable, "-m", "pytest", "--collect-only", "-p", "no:cacheprovider", "-m", "not interpreted"]
    done = subprocess.run([*command, *files], cwd=ROOT, env=environ(), capture_output=True, text=True, check=True)
    assert set(re.findall(r"^tests/wire/test_(\w+)\.py::", done.stdout, re.MULTILINE)) == {"headers"}
