from __future__ import annotations

import json
import os
import shlex
import signal
import sys
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from proxy.cli import main
from proxy.commands.serve import end_with_stdin
from proxy.server import app
from proxy.settings import ConfigError, Settings


class App:
    """Takes the place of `proxy.server.app.serve` and keeps what it was given."""

    settings: Settings
    options: dict[str, Any]
    fails = ""

    def __call__(self, settings: Settings, **options: Any) -> int:
        self.settings, self.options = settings, options
        if self.fails:
            raise app.StartError(self.fails)
        options["announce"]("http://0.0.0.0:18080", "http://127.0.0.1:18081")
        if options["embedded"]:
            with urllib.request.urlopen(f"{settings.upstreams[0].url}/v1/models", timeout=5) as answer:
                self.model = json.load(answer)["data"][0]["id"]
        return 0


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> App:
    fake = App()
    monkeypatch.setattr(app, "serve", fake)
    for name in [name for name in os.environ if name.startswith("PENSTOCK_")]:
        monkeypatch.delenv(name)
    return fake


def test_the_command_line_wins_and_survives_a_reload(served: App, tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("listen: {port: 1}\ntarget: {itl_ms: 20}\nupstreams: [{url: 'http://file:1'}]")
    line = f"serve --config {path} --upstream http://a:1 --upstream http://b:2 --port 2 --admin-port 3 --record {path}"
    assert main([*line.split(), "--host", "h", "--admin-host", "::1"]) == 0
    for settings in (served.settings, served.options["reload"]()):
        assert [entry.url for entry in settings.upstreams] == ["http://a:1", "http://b:2"]
        assert (settings.listen.host, settings.listen.port, settings.target.itl_ms) == ("h", 2, 20)
        assert (settings.admin.host, settings.admin.port) == ("::1", 3)
    path.write_text("target: {itl_ms: 30}")
    assert served.options["reload"]().target.itl_ms == 30
    assert (served.options["embedded"], served.options["record"], served.options["checks"]) == (False, path, False)
    assert main([*line.split(), "--check-invariants"]) == 0
    assert served.options["checks"] is True


def test_a_reload_that_would_leave_no_upstream_is_refused(served: App, tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("upstreams: [{url: 'http://file:1'}]")
    assert main(["serve", "--config", str(path)]) == 0
    path.write_text("log: {level: info}")
    with pytest.raises(ConfigError, match=r"c\.yaml: upstreams: none is given; add one"):
        served.options["reload"]()


def test_without_an_upstream_a_simulated_engine_answers_and_says_so(
    served: App, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["serve"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "SIMULATED" in lines[0]
    assert lines[2:4] == ["public  http://0.0.0.0:18080", "admin   http://127.0.0.1:18081"]
    words = shlex.split(lines[4].removeprefix("try it: "))
    assert words[:3] == ["curl", "-N", "http://127.0.0.1:18080/v1/chat/completions"]
    assert json.loads(words[-1])["model"] == served.model
    assert served.options["embedded"] is True
    assert served.options["reload"]().upstreams == served.settings.upstreams


@pytest.mark.parametrize(
    ("models", "shown"), [("auto", '"model": "MODEL"'), ("[small, large]", '"model": "small"')]
)  # fmt: skip
def test_the_line_to_paste_names_a_configured_model(
    served: App, models: str, shown: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(f"upstreams: [{{url: 'http://e:1', models: {models}}}]")
    assert main(["serve", "--config", str(path)]) == 0
    out = capsys.readouterr().out
    assert shown in out
    assert "SIMULATED" not in out


@pytest.mark.parametrize(
    ("text", "fails", "code", "message"),
    [
        ("log: {level: info}", "", 2, "upstreams: none is given; add one, or --upstream URL"),
        ("upstreams: [{url: 'http://e:1'}]", "cannot listen: taken", 1, "penstock: cannot listen: taken\n"),
    ],
)
def test_what_stops_a_start_is_told(
    served: App, text: str, fails: str, code: int, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(text)
    served.fails = fails
    assert main(["serve", "--config", str(path)]) == code
    assert message in capsys.readouterr().err


def test_the_end_of_standard_input_asks_this_process_to_drain(monkeypatch: pytest.MonkeyPatch) -> None:
    heard: list[tuple[int, int]] = []
    reading, writing = os.pipe()
    os.write(writing, b"not looked at")
    os.close(writing)
    with os.fdopen(reading) as pipe:
        monkeypatch.setattr(sys, "stdin", pipe)
        monkeypatch.setattr(os, "kill", lambda pid, number: heard.append((pid, number)))
        end_with_stdin()
    assert heard == [(os.getpid(), signal.SIGTERM)]
