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

from proxy import __version__
from proxy.settings.example import example

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy, so that nothing of the build is left in the tree."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    for name in ("proxy", "config", "grafana"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(out)]
    subprocess.run(build, cwd=source, check=True, capture_output=True)
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
    for line in ("STOPSIGNAL SIGTERM", 'CMD ["penstock", "healthcheck"]', "USER 10001", 'ENTRYPOINT ["penstock"]'):
        assert line in docker
