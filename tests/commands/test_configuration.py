from __future__ import annotations

import json
from pathlib import Path

import pytest

from proxy.cli import main
from proxy.settings.example import example, schema


def test_what_config_prints_is_made_from_the_model(capsys: pytest.CaptureFixture[str]) -> None:
    for what, text in (("example", example()), ("schema", schema())):
        assert main(["config", what]) == 0
        assert capsys.readouterr().out == text


def test_a_good_file_is_shown_by_upstream(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("upstreams: [{url: 'http://e:1'}, {name: b, url: 'http://f:1', limit: {mode: fixed, initial: 4}}]")
    assert main(["check-config", str(path)]) == 0
    head, *rows = capsys.readouterr().out.splitlines()
    assert head.startswith(f"{path}: valid, hash ")
    assert rows[1:] == [
        "upstream-0  http://e:1  auto    adaptive, model  auto",
        "b           http://f:1  auto    fixed at 4       auto",
    ]
    assert main(["check-config", "--json", str(path)]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["valid"], told["hash"], told["upstreams"][1]["name"]) == (True, head[-12:], "b")


def test_a_bad_file_gives_its_faults_and_code_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("listen: {port: x}\nlog: {level: loud}")
    assert main(["check-config", "--json", str(path)]) == 2
    out, error = capsys.readouterr()
    problems = json.loads(out)["problems"]
    assert error.splitlines() == [f"penstock: {line}" for line in problems]
    assert [line.split(": ")[:2] for line in problems] == [["c.yaml:1", "listen.port"], ["c.yaml:2", "log.level"]]
