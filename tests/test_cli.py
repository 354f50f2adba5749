from __future__ import annotations

import subprocess
import sys

import pytest

from proxy import __version__
from proxy.adapters.build_info import COMPILED
from proxy.cli import main

HEAVY = ("pydantic", "yaml", "aiohttp", "uvloop", "asyncio", "structlog", "http.client")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("", "the following arguments are required: COMMAND; see: penstock --help"),
        ("fly", "invalid choice: 'fly'"),
        ("serve --prot 1", "unrecognized arguments: --prot 1; see: penstock --help"),
        ("serve --port 65536", "argument --port: '65536' is no TCP port; give 0 to 65535; see: penstock serve --help"),
        ("simulate --speed 0", "argument --speed: '0' is no number above 0"),
        ("demo --rate x", "argument --rate: 'x' is no number above 0"),
        ("simulate --profile x", "no engine profile 'x'; choose one of: "),
        ("serve --profile x", "no engine profile 'x'; choose one of: "),
        ("demo --profile x", "no engine profile 'x'; choose one of: "),
        ("serve --upstream 127.0.0.1:8000", "command line: upstreams.0.url: '127.0.0.1:8000' is no URL of an engine"),
        ("check-config /nowhere.yaml", "/nowhere.yaml: the configuration cannot be read (no such file or directory)"),
    ],
)
def test_wrong_use_is_one_line_on_standard_error_and_code_2(
    line: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(line.split()) == 2
    error = capsys.readouterr().err
    assert error.startswith("penstock: ")
    assert error.count("\n") == 1
    assert message in error


@pytest.mark.parametrize("command", ["serve", "demo", "simulate", "check-config", "config", "keys", "healthcheck"])
def test_every_command_has_help_with_an_example(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([command, "--help"])
    text = capsys.readouterr().out
    assert ended.value.code == 0
    assert f"usage: penstock {command}" in text
    assert "penstock " + command in text[text.index("example:") :]


def test_the_version_is_that_of_the_package(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--version"])
    assert capsys.readouterr().out == f"penstock {__version__}{' (compiled)' if COMPILED else ''}\n"


def test_help_loads_nothing_heavy() -> None:
    show = "import sys, proxy.cli; proxy.cli.parser().format_help(); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", show], check=True, capture_output=True, text=True)
    assert not set(HEAVY) & set(done.stdout.split())


def test_a_reader_that_leaves_ends_the_command_without_a_trace() -> None:
    command = f"{sys.executable} -m proxy config schema | head -c 1"
    done = subprocess.run(["bash", "-c", f"{command}; exit ${{PIPESTATUS[0]}}"], capture_output=True, check=False)
    assert (done.returncode in {0, 1}, done.stdout, done.stderr) == (True, b"{", b"")
