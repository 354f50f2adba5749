"""Build hook of the wheel: compiles the modules of the request path with mypyc, where the machine can.

`PENSTOCK_COMPILE` decides: `auto` (the default) compiles where there is a C compiler with Python's headers, and else
makes a wheel of Python alone; `1` compiles or fails; `0` does not compile. The sources stay in the wheel beside what is
made of them. An editable install and the source distribution hold no compiled module.

Run as a script this file compiles, in a process of its own: mypyc ends with sys.exit, and compilers print.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from concurrent.futures import ThreadPoolExecutor
from importlib import metadata
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

MYPY = "2.4.1"  # exactly that of requirements-dev.lock: releases of mypyc differ in what they compile, and how
REQUIREMENTS = [f"mypy=={MYPY}", "setuptools>=65"]
GROUP = "penstock"  # names the library that the compiled modules share, `penstock__mypyc` at the top of site-packages
COST = "a request then takes more CPU"
LINES_OF_ERROR = 30


class CompiledModules(BuildHookInterface[Any]):
    def dependencies(self) -> list[str]:
        mode = os.environ.get("PENSTOCK_COMPILE", "auto")
        return REQUIREMENTS if mode == "1" or (mode == "auto" and not no_toolchain()) else []

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        mode = os.environ.get("PENSTOCK_COMPILE", "auto")
        if mode not in {"auto", "0", "1"}:
            self.app.abort(f"PENSTOCK_COMPILE is {mode!r}; give auto, 0 or 1")
        if mode == "0" or version == "editable":
            return
        self._made = tempfile.TemporaryDirectory(prefix="penstock-")  # goes with the hook, after the wheel is written
        problem = no_toolchain() or no_mypyc() or self._compile(Path(self._made.name))
        if problem and mode == "1":
            self.app.abort(f"PENSTOCK_COMPILE=1, but nothing is compiled: {problem}")
        if problem:
            self.app.display_warning(f"penstock is installed as plain Python ({COST}): {problem}")
            return
        built = Path(self._made.name, "lib")
        for path in built.rglob(f"*{sysconfig.get_config_var('EXT_SUFFIX')}"):
            build_data["force_include"][str(path)] = path.relative_to(built).as_posix()
        build_data.update(pure_python=False, infer_tag=True)

    def _compile(self, folder: Path) -> str:
        """Compile into `folder`/lib; what went wrong."""
        modules = modules_of(Path(self.root), self.config["modules"])
        self.app.display_info(f"Compiling {len(modules)} modules; this takes a minute")
        done = subprocess.run(  # noqa: S603
            [sys.executable, __file__, str(folder), *modules],
            cwd=self.root, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", check=False,
        )  # fmt: skip
        last = "\n".join(done.stdout.splitlines()[-LINES_OF_ERROR:])
        return f"compilation fails:\n{last}" if done.returncode else ""


def modules_of(root: Path, patterns: list[str]) -> list[str]:
    """Files below `root`, relative to it; every pattern must match."""
    found = {pattern: [p for p in root.glob(pattern) if p.name != "__init__.py"] for pattern in patterns}
    if unmatched := [pattern for pattern, paths in found.items() if not paths]:
        raise ValueError(f"no module to compile matches {', '.join(unmatched)}")
    return sorted({path.relative_to(root).as_posix() for paths in found.values() for path in paths})


def no_toolchain() -> str:
    """What this machine and interpreter lack for compiling; empty if nothing."""
    if sys.implementation.name != "cpython":
        return f"mypyc compiles for CPython, and this is {sys.implementation.name}"
    compiler = shlex.split(os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc")[0]
    if not shutil.which(compiler):
        return f"there is no C compiler ({compiler})"
    if not Path(sysconfig.get_path("include"), "Python.h").is_file():
        return "there are no headers of Python (Python.h)"
    return ""


def no_mypyc() -> str:
    """What is missing where the installer has not prepared the environment of the build."""
    for name, version in (("mypy", MYPY), ("setuptools", "")):
        try:
            found = metadata.version(name)
        except metadata.PackageNotFoundError:
            found = ""
        if not found or (version and found != version):
            return f"{name} {version or 'of any version'} is needed to compile, and {found or 'none'} is there"
    return ""


def compile_modules(folder: Path, modules: list[str]) -> None:
    from mypyc.build import mypycify
    from setuptools import Distribution
    from setuptools.command.build_ext import build_ext

    class Build(build_ext):  # type: ignore[misc]  # setuptools may be too old to have types
        def build_extensions(self) -> None:
            """All files at once: setuptools' own parallelism is one of extensions, and nearly all is in one."""
            compile_in_turn, workers = self.compiler.compile, os.cpu_count()

            def compile_at_once(sources: list[str], **options: Any) -> list[str]:
                with ThreadPoolExecutor(workers) as pool:
                    made = pool.map(lambda source: compile_in_turn([source], **options), sources)
                    return [path for paths in made for path in paths]

            self.compiler.compile, self.parallel = compile_at_once, workers
            super().build_extensions()

    checks = ["--config-file=", "--ignore-missing-imports", "--follow-imports=silent", "--no-site-packages"]
    target = str(folder / "c")
    extensions = mypycify(
        [*checks, *modules],
        opt_level="2",
        debug_level="0",
        multi_file=True,
        target_dir=target,
        group_name=GROUP,
    )
    for extension in extensions:
        extension.extra_compile_args += [
            "-Wno-error",  # a compiler that is newer than mypyc knows more warnings
            "-ffp-contract=off",  # a * b + c is rounded twice, as by the interpreter
            "-fvisibility=hidden",  # nobody else defines these functions: calls among them go straight, or are inlined
            "-fno-plt",  # and those of Python's own without a step in between
        ]
    build = Build(Distribution({"name": GROUP, "ext_modules": extensions}))
    build.build_lib, build.build_temp = str(folder / "lib"), str(folder / "objects")
    build.ensure_finalized()
    try:
        build.run()
    except Exception as error:  # the compiler has said what is wrong, and the way to it helps nobody
        sys.exit(str(error))


if __name__ == "__main__":
    compile_modules(Path(sys.argv[1]), sys.argv[2:])
