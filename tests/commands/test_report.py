from __future__ import annotations

import json
from pathlib import Path

import pytest

from proxy.cli import main
from tests.loadtest.test_compare import run


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    for name, document in (("a", run(36.8, 27.2)), ("b", run(196, 40.8))):
        (tmp_path / f"{name}.json").write_text(json.dumps(document))
    return [str(tmp_path / "a.json"), str(tmp_path / "b.json")]


def test_two_files_are_compared_on_the_terminal_and_in_files(
    files: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = [tmp_path / "new" / "r.md", tmp_path / "r.html"]
    assert main(["report", *files, "--out", str(out[0]), "--out", str(out[1]), "--title", "Batch"]) == 0
    text = capsys.readouterr().out
    assert text.startswith("Batch\n=====\n")
    assert "█" in text
    assert out[0].read_text().startswith("# Batch\n")
    assert "<svg" in out[1].read_text()


def test_one_file_is_shown_and_json_is_for_programs(files: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", files[0]]) == 0
    assert capsys.readouterr().out.startswith("Load test a\n")
    assert main(["report", *files, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    found = {one["name"]: one["ratio"] for one in document["changes"]}
    assert found["throughput (output tok/s)"] == pytest.approx(5.33, abs=0.01)
    assert (len(document["analysis"]) > 2, document["warnings"]) == (True, [])
    assert main(["report", files[0], "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["requests"] == 2


def test_a_file_beside_itself_has_two_names(files: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", files[0], files[0]]) == 0
    assert capsys.readouterr().out.startswith("a (1) against a (2)\n")


def test_the_schema_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", "--schema"]) == 0
    assert json.loads(capsys.readouterr().out)["title"] == "Results of penstock loadtest"


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        ([], 2, "give one or two results files"),
        (["a", "b", "c"], 2, "give one or two results files"),
        (["a", "--out", "r.pdf"], 2, "--out r.pdf: the name must end in .md or .html"),
        (["none.json"], 1, "none.json: cannot be read (No such file or directory); give a results file"),
    ],
)
def test_wrong_use_is_one_line(words: list[str], code: int, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", *words]) == code
    assert message in capsys.readouterr().err
