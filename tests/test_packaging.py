"""The wheel is built without network, carries its data, and its command runs from anywhere."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from hatchling.builders.wheel import WheelBuilder

import hatch_build
from proxy import __version__
from proxy.settings.example import example

ROOT = Path(__file__).parent.parent
pytestmark = pytest.mark.source  # of the build; what it has made is for tests/test_compiled.py

NOWHERE = "/nonexistent/cc"


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy, so that nothing of a build is left in the tree."""
    folder = tmp_path_factory.mktemp("source")
    for name in ("pyproject.toml", "hatch_build.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder)
    for name in ("proxy", "config", "grafana"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    return folder


def build(source: Path, out: Path, **environ: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(out)]
    kept = {name: value for name, value in os.environ.items() if name not in ("PENSTOCK_COMPILE", "CC")}
    return subprocess.run(
        command, cwd=source, env={**kept, **environ}, capture_output=True, text=True, check=False, timeout=300
    )


@pytest.fixture(scope="module")
def wheel(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("wheel")
    done = build(source, out, PENSTOCK_COMPILE="0")
    assert done.returncode == 0, done.stderr
    (path,) = out.glob("*.whl")
    return path


def test_the_wheel_holds_package_data_licence_and_command_and_no_tests(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    info = f"penstock-{__version__}.dist-info"
    assert {f"{info}/licenses/LICENSE", f"{info}/entry_points.txt", "proxy/py.typed", "proxy/cli.py"} <= names
    for folder, target in (
        ("config", "proxy/_data/config/"),
        ("proxy/server/status_page", "proxy/server/status_page/"),
    ):
        files = {p.relative_to(ROOT / folder).as_posix() for p in (ROOT / folder).rglob("*") if p.is_file()}
        assert {target + name for name in files} <= names
    assert all(name.startswith(("proxy/", info)) for name in names)
    assert "\nLicense-Expression: Apache-2.0\n" in zipfile.ZipFile(wheel).read(f"{info}/METADATA").decode()


def test_the_installed_command_finds_its_data_from_elsewhere(wheel: Path, tmp_path: Path) -> None:
    site, elsewhere = tmp_path / "site", tmp_path / "elsewhere"
    zipfile.ZipFile(wheel).extractall(site)
    (elsewhere / "proxy").mkdir(parents=True)  # another package of that name must not get in the way
    (elsewhere / "proxy" / "__init__.py").write_text("raise ImportError('the wrong proxy')")
    find = "import proxy.adapters.data as d; print(d.data_folder('config'))"

    def run(*arguments: str) -> str:
        environ = {**os.environ, "PYTHONPATH": str(site)}
        command = [sys.executable, "-P", *arguments]
        done = subprocess.run(command, cwd=elsewhere, env=environ, check=True, capture_output=True, text=True)
        return done.stdout

    assert run("-c", find).strip() == str(site / "proxy" / "_data" / "config")
    assert run("-m", "proxy", "--version") == f"penstock {__version__}\n"
    assert run("-m", "proxy", "config", "example") == example()


def test_a_wheel_that_is_not_compiled_fits_every_platform(wheel: Path) -> None:
    assert wheel.name == f"penstock-{__version__}-py3-none-any.whl"
    assert not [name for name in zipfile.ZipFile(wheel).namelist() if name.endswith((".so", ".pyd", ".c"))]


def test_without_a_compiler_the_wheel_is_plain_python_and_the_build_says_why(source: Path, tmp_path: Path) -> None:
    done = build(source, tmp_path, CC=NOWHERE)
    assert done.returncode == 0, done.stderr
    (line,) = [line for line in done.stderr.splitlines() if "as plain Python" in line]
    assert line.endswith(f"there is no C compiler ({NOWHERE})")
    assert [path.name for path in tmp_path.iterdir()] == [f"penstock-{__version__}-py3-none-any.whl"]


@pytest.mark.parametrize(
    ("environ", "message"),
    [
        ({"PENSTOCK_COMPILE": "1", "CC": NOWHERE}, f"nothing is compiled: there is no C compiler ({NOWHERE})"),
        ({"PENSTOCK_COMPILE": "yes"}, "PENSTOCK_COMPILE is 'yes'; give auto, 0 or 1"),
    ],
)
def test_a_build_that_cannot_do_as_told_fails_in_one_line(
    environ: dict[str, str], message: str, source: Path, tmp_path: Path
) -> None:
    done = build(source, tmp_path, **environ)
    assert done.returncode == 1
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.iterdir())


def test_an_editable_install_is_told_of_nothing_compiled(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PENSTOCK_COMPILE", "1")
    builder = WheelBuilder(str(source))
    (hook,) = builder.get_build_hooks(str(tmp_path)).values()
    told = builder.get_default_build_data()
    hook.initialize("editable", told)
    assert told == builder.get_default_build_data()


@pytest.fixture(scope="module")
def small(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same project with two modules to compile: seconds instead of a minute."""
    folder = tmp_path_factory.mktemp("small") / "source"
    shutil.copytree(source, folder)
    project = (folder / "pyproject.toml").read_text()
    two = 'modules = ["proxy/types.py", "proxy/routing/re*.py"]\n'
    (folder / "pyproject.toml").write_text(re.sub(r"(?ms)^modules = \[$.*?^\]\n", two, project))
    return folder


@pytest.mark.compiled
def test_a_compiled_wheel_holds_the_modules_and_the_library_that_they_share(small: Path, tmp_path: Path) -> None:
    done = build(small, tmp_path, PENSTOCK_COMPILE="1")
    assert done.returncode == 0, done.stderr
    (path,) = tmp_path.glob(f"penstock-{__version__}-cp*.whl")
    native = {name.split(".")[0] for name in zipfile.ZipFile(path).namelist() if name.endswith((".so", ".pyd"))}
    assert native == {"penstock__mypyc", "proxy/types", "proxy/routing/retry"}
    assert not [path for path in small.rglob("*") if path.suffix in {".so", ".c", ".o"}]


@pytest.mark.compiled
@pytest.mark.parametrize(("mode", "code"), [("auto", 0), ("1", 1)])
def test_a_compiler_that_fails_costs_the_speed_and_not_the_install_unless_told(
    mode: str, code: int, small: Path, tmp_path: Path
) -> None:
    compiler, out = tmp_path / "cc", tmp_path / "out"
    compiler.write_text("#!/bin/sh\necho the compiler is ill >&2; exit 1\n")
    compiler.chmod(0o755)
    done = build(small, out, PENSTOCK_COMPILE=mode, CC=str(compiler))
    assert done.returncode == code
    assert "compilation fails" in done.stderr
    assert "the compiler is ill" in done.stderr
    assert len(list(out.glob("*-none-any.whl"))) == 1 - code


def test_only_a_build_that_compiles_asks_for_mypy(monkeypatch: pytest.MonkeyPatch) -> None:
    hook = hatch_build.CompiledModules.__new__(hatch_build.CompiledModules)

    def asked(mode: str, problem: str) -> list[str]:
        monkeypatch.setenv("PENSTOCK_COMPILE", mode)
        monkeypatch.setattr(hatch_build, "no_toolchain", lambda: problem)
        return hook.dependencies()

    assert asked("auto", "") == asked("1", "none") == asked("1", "") == hatch_build.REQUIREMENTS
    assert asked("auto", "none") == asked("0", "") == []


def test_mypy_of_the_build_is_that_of_the_tests(monkeypatch: pytest.MonkeyPatch) -> None:
    assert f"\nmypy=={hatch_build.MYPY} " in (ROOT / "requirements-dev.lock").read_text()
    assert hatch_build.no_mypyc() == ""
    monkeypatch.setattr(hatch_build, "MYPY", "0.1")
    assert hatch_build.no_mypyc().startswith("mypy 0.1 is needed to compile, and ")


def test_a_pattern_of_modules_that_matches_none_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "__init__.py").touch()
    (tmp_path / "one.py").touch()
    assert hatch_build.modules_of(tmp_path, ["*.py", "one.py"]) == ["one.py"]
    with pytest.raises(ValueError, match=r"no module to compile matches gone/\*\.py"):
        hatch_build.modules_of(tmp_path, ["*.py", "gone/*.py"])


def test_both_lock_files_pin_every_run_time_dependency_with_a_hash() -> None:
    declared = re.findall(
        r'(?m)^    "([a-z-]+)>=', (ROOT / "pyproject.toml").read_text().split("[project.optional-dependencies]")[0]
    )
    assert len(declared) >= 8
    for lock in ("requirements.lock", "requirements-dev.lock"):
        text = (ROOT / lock).read_text()
        assert not [name for name in declared if not re.search(rf"(?m)^{name}==\S+.*\\\n    --hash=sha256:", text)]


def test_the_image_is_built_from_what_the_context_lets_in() -> None:
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    docker = (ROOT / "Dockerfile").read_text()
    copied = {name for line in re.findall(r"(?m)^COPY (?!--from)(.*) \S+$", docker) for name in line.split()}
    assert copied == allowed
    assert all((ROOT / name).exists() for name in copied)
    build_stage, final_stage = re.split(r"(?m)^FROM ", docker)[1:]
    assert "gcc libc6-dev" in build_stage
    assert "PENSTOCK_COMPILE=1 pip wheel" in build_stage
    assert "apt-get" not in final_stage
    for line in ("STOPSIGNAL SIGTERM", 'CMD ["penstock", "healthcheck"]', "USER 10001", 'ENTRYPOINT ["penstock"]'):
        assert line in docker
