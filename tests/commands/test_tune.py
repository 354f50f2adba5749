from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest

from proxy.cli import main
from tests.loadtest.support import in_a_thread, whole

Capture = pytest.CaptureFixture[str]
SHORT = ["--duration", "0.1", "--warmup", "0", "--prompt-tokens", "4", "--output-tokens", "3", "--max", "2"]
EASY = ["--itl-ms", "9000", "--ttft-ms", "9000"]


def test_it_prints_and_saves_an_answer(tmp_path: Path, capsys: Capture) -> None:
    with in_a_thread() as endpoint:
        assert main(["tune", endpoint.url, *SHORT, *EASY, "--out", str(tmp_path / "t"), "--cost-per-hour", "2"]) == 0
    text = capsys.readouterr().out
    assert text.startswith("grow        1 ")
    assert "A concurrency of " in text
    assert "cost per 1M tokens" in text
    assert json.loads((tmp_path / "t.json").read_text())["recommended_concurrency"] in (1, 2)
    assert "<h2>Evidence</h2>" in (tmp_path / "t.html").read_text()


def test_json_alone_and_one_where_nothing_holds(capsys: Capture) -> None:
    with in_a_thread(whole({}, 500)) as endpoint:
        assert main(["tune", endpoint.url, *SHORT, "--json"]) == 1
    document = json.loads(capsys.readouterr().out)
    assert document["recommended_concurrency"] is None
    assert document["trials"][0]["problems"] == ["100.0% of requests failed"]
    assert any("status 500" in line for line in document["warnings"])


@pytest.mark.parametrize("words", [["--attainment", "1.5"], ["--start", "8", "--max", "4"]])
def test_wrong_use_is_one_line(words: list[str], capsys: Capture) -> None:
    assert main(["tune", "http://127.0.0.1:9", *words]) == 2
    assert capsys.readouterr().err == "penstock: --attainment is at most 1, and --start at most --max\n"


def test_an_interruption_is_told(capsys: Capture) -> None:
    def interrupt(said: object) -> None:
        if len(endpoint.asked) == 5:
            os.kill(os.getpid(), signal.SIGINT)

    with in_a_thread() as endpoint:
        endpoint.seen = interrupt
        assert main(["tune", endpoint.url, *SHORT]) == 1
    said = capsys.readouterr()
    assert "Not finished: no setting is confirmed yet" in said.out
    assert said.err == "penstock: interrupted after 0 runs; nothing is confirmed\n"
