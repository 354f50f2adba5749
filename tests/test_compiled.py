"""What `make install` has made: every module that is to be compiled is, and runs with its command from anywhere."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from importlib import import_module, metadata
from pathlib import Path

import pytest

import proxy.dispatcher.core
from hatch_build import GROUP
from proxy import __version__
from tests.children import IMPORTS, ROOT
from tests.reach import LISTED

SUFFIX = str(sysconfig.get_config_var("EXT_SUFFIX"))


@pytest.mark.source
def test_tests_of_the_source_import_the_source() -> None:
    assert Path(proxy.dispatcher.core.__file__) == ROOT / "proxy" / "dispatcher" / "core.py"


@pytest.mark.compiled
def test_tests_of_the_compiled_package_import_it() -> None:
    found = proxy.dispatcher.core.__file__
    assert found.endswith(SUFFIX), f"{found}: run make test-compiled; if make install has found no compiler, again"


@pytest.mark.compiled
def test_every_module_that_is_listed_is_compiled_and_keeps_its_source() -> None:
    names = {str(file) for file in metadata.files("penstock") or ()}
    assert len(LISTED) > 60
    assert not [name for name in LISTED if name not in names or name.removesuffix(".py") + SUFFIX not in names]
    assert f"{GROUP}__mypyc{SUFFIX}" in names


@pytest.mark.compiled
def test_no_compiled_class_lies_over_the_attributes_of_a_base_that_is_not() -> None:
    """mypyc puts a class's own attributes where an interpreted base has its: memory is corrupted, first seen by gc."""
    modules = [import_module(name.removesuffix(".py").replace("/", ".")) for name in LISTED]
    classes = {found for module in modules for found in vars(module).values() if isinstance(found, type)}
    native = {found for found in classes if "__mypyc_attrs__" in vars(found)}
    assert len(native) > 100
    assert not [
        (found, base)
        for found in native
        for base in found.__mro__
        if "__mypyc_attrs__" not in vars(base)
        if base.__basicsize__ > object.__basicsize__ and not issubclass(base, BaseException)
    ]


def handled(tree: ast.AST) -> Iterator[ast.ExceptHandler]:
    return (node for node in ast.walk(tree) if isinstance(node, ast.ExceptHandler))


def test_nothing_that_is_compiled_waits_within_an_except() -> None:
    """A generator or coroutine of mypyc that is suspended there leaves its error with whoever runs meanwhile."""
    waits = (ast.Yield, ast.YieldFrom, ast.Await, ast.AsyncFor, ast.AsyncWith)
    assert not [
        f"{name}:{handler.lineno}"
        for name in LISTED
        for handler in handled(ast.parse((ROOT / name).read_text(encoding="utf-8")))
        if any(isinstance(node, waits) for node in ast.walk(handler))
    ]


@pytest.mark.compiled
def test_it_decides_as_the_source_does_to_the_last_bit() -> None:
    def told(imports: str) -> list[str]:
        environ = {**os.environ, "PYTHONPATH": imports, "PYTHONHASHSEED": "0"}
        command = [sys.executable, "-P", "-m", "tests.digest"]
        return subprocess.run(command, env=environ, capture_output=True, text=True, check=True).stdout.splitlines()

    compiled, source = told(IMPORTS), told(str(ROOT))
    assert (compiled[0], source[0]) == ("True", "False")
    assert compiled[1:] == source[1:]


@pytest.mark.compiled
def test_the_wheel_fits_only_this_python_and_platform() -> None:
    wheel = metadata.distribution("penstock").read_text("WHEEL") or ""
    version = f"cp{sys.version_info[0]}{sys.version_info[1]}"
    assert f"\nTag: {version}-{version}-" in wheel
    assert "\nRoot-Is-Purelib: false\n" in wheel


@pytest.mark.compiled
def test_the_command_says_from_anywhere_that_it_is_compiled(tmp_path: Path) -> None:
    command = [str(Path(sys.executable).with_name("penstock")), "--version"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout == f"penstock {__version__} (compiled)\n"
