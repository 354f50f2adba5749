from __future__ import annotations

import json
import os
import re
import signal
from argparse import Namespace
from pathlib import Path

import pytest

from proxy.cli import main
from proxy.commands.base import CommandError
from proxy.commands.sweep import POWERS, settings_of
from tests.loadtest.support import in_a_thread, whole

Capture = pytest.CaptureFixture[str]
SHORT = ["--duration", "0.2", "--warmup", "0", "--prompt-tokens", "4", "--output-tokens", "3"]


def test_it_saves_three_files_and_goes_on_where_it_ended(tmp_path: Path, capsys: Capture) -> None:
    words = [*SHORT, "--out", str(tmp_path / "s"), "--slo", "ttft=5s"]
    with in_a_thread() as endpoint:
        assert main(["sweep", endpoint.url, "--concurrency", "1,2", *words]) == 0
        first, told = len(endpoint.asked), re.compile(r"^concurrency (\d): ", re.MULTILINE)
        assert told.findall(capsys.readouterr().err) == ["1", "2"]
        assert main(["sweep", endpoint.url, "--concurrency", "1,2,3", *words, "--json"]) == 0
        assert told.findall(capsys.readouterr().err) == ["3"] and len(endpoint.asked) > first
        assert main(["sweep", endpoint.url, "--concurrency", "1,2", *words, "--seed", "4"]) == 2
        assert "holds another sweep (other workload); give another --out, or --fresh" in capsys.readouterr().err
        assert main(["sweep", endpoint.url, "--concurrency", "3", *words, "--seed", "4", "--fresh"]) == 0
    assert [one["setting"] for one in json.loads((tmp_path / "s.json").read_text())["points"]] == [3]
    assert (tmp_path / "s.png").read_bytes().startswith(b"\x89PNG")
    assert "<svg" in (tmp_path / "s.html").read_text()
    assert capsys.readouterr().out.rstrip().endswith("s.png")


def test_where_nothing_succeeds_it_says_so(tmp_path: Path, capsys: Capture) -> None:
    with in_a_thread(whole({}, 500)) as endpoint:
        assert main(["sweep", endpoint.url, "--rate", "20", *SHORT, "--out", str(tmp_path / "s")]) == 1
    assert "0.0%" in capsys.readouterr().out
    assert not (tmp_path / "s.png").exists()


def test_a_file_of_something_else_is_not_overwritten(tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "s.json").write_text("{}")
    assert main(["sweep", "http://127.0.0.1:9", *SHORT, "--out", str(tmp_path / "s")]) == 1
    assert "s.json: is no file of penstock sweep; give another --out" in capsys.readouterr().err
    assert (tmp_path / "s.json").read_text() == "{}"


def test_an_admin_listener_that_does_not_answer(tmp_path: Path, capsys: Capture) -> None:
    words = ["--set", "limit=2", "--admin", "http://127.0.0.1:9", "--out", str(tmp_path / "s")]
    assert main(["sweep", "http://127.0.0.1:9", *words]) == 1
    assert capsys.readouterr().err == "penstock: the admin listener does not answer (refused); check --admin\n"


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, ("concurrency", list(POWERS))),
        ({"concurrency": "8,1,8"}, ("concurrency", [1, 8])),
        ({"rate": "0.5,2"}, ("rate", [0.5, 2])),
        ({"set": "limit=4,2", "admin": "http://h"}, ("limit", [2, 4])),
    ],
)
def test_settings(given: dict[str, str], expected: tuple[str, list[float]]) -> None:
    none = dict.fromkeys(("rate", "concurrency", "set", "admin"))
    assert settings_of(Namespace(**none | given)) == expected


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"concurrency": "1.5"}, "give whole numbers above 0"),
        ({"concurrency": "one"}, "give whole numbers above 0"),
        ({"rate": "0"}, "give numbers above 0"),
        ({"rate": "nan"}, "give numbers above 0"),
        ({"set": "limit=4"}, "--set takes limit=N"),
        ({"set": "rate=4", "admin": "http://h"}, "--set takes limit=N"),
    ],
)
def test_settings_that_make_no_sense(given: dict[str, str], message: str) -> None:
    none = dict.fromkeys(("rate", "concurrency", "set", "admin"))
    with pytest.raises(CommandError, match=message) as error:
        settings_of(Namespace(**none | given))
    assert error.value.code == 2


def test_an_interruption_keeps_the_points_that_are_done(tmp_path: Path, capsys: Capture) -> None:
    out = tmp_path / "s"

    def interrupt(said: object) -> None:
        if out.with_suffix(".json").exists() and not sent:
            sent.append(True)
            os.kill(os.getpid(), signal.SIGINT)

    sent: list[bool] = []
    with in_a_thread() as endpoint:
        endpoint.seen = interrupt
        words = ["sweep", endpoint.url, "--concurrency", "1,2,3", *SHORT, "--out", str(out)]
        assert main(words) == 1
        error = capsys.readouterr().err
        assert "interrupted after 1 of 3 points; the same command goes on from there" in error
        assert error.startswith("concurrency 1: ")
        assert [one["setting"] for one in json.loads(out.with_suffix(".json").read_text())["points"]] == [1]
        assert main(words) == 0
        sent.clear()
        assert main([*words, "--fresh"]) == 1
    assert capsys.readouterr().err.endswith("penstock: interrupted before the first point was measured\n")
