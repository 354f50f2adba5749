from __future__ import annotations

import json
from pathlib import Path

import jsonschema  # type: ignore[import-untyped]
import pytest

from proxy.cli import main
from proxy.loadtest.results import json_schema
from tests.loadtest.support import in_a_thread, whole

FEW = ["--concurrency", "2", "--requests", "6", "--warmup", "0"]


def test_it_prints_saves_and_ends_with_zero(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, records = tmp_path / "a.json", tmp_path / "a.jsonl"
    with in_a_thread() as endpoint:
        words = ["--out", str(out), "--records", str(records), "--slo", "ttft=5s", "--label", "one"]
        assert main(["loadtest", endpoint.url, *FEW, *words]) == 0
    text = capsys.readouterr().out
    assert text.startswith(f"chat_medium at {endpoint.url}, model m\n")
    assert "good (ttft=5000ms)" in text
    document = json.loads(out.read_text())
    jsonschema.validate(document, json_schema())
    assert (document["total"]["successes"], document["meta"]["label"]) == (6, "one")
    assert len(records.read_text().splitlines()) == 6


def test_json_on_request_and_one_where_nothing_succeeded(capsys: pytest.CaptureFixture[str]) -> None:
    with in_a_thread(whole({}, 503)) as endpoint:
        assert main(["loadtest", endpoint.url, *FEW, "--json"]) == 1
    document = json.loads(capsys.readouterr().out)
    assert document["total"]["endings"] == {"status": 6}
    assert document["total"]["statuses"] == {"503": 6}


def test_nobody_there_is_reported_and_counted(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["loadtest", "http://127.0.0.1:9", *FEW]) == 1
    assert "connect: 6, for example: Connection refused" in capsys.readouterr().out


def test_wrong_use_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    workload = tmp_path / "w.yaml"
    workload.write_text("flows: [{name: a, key_env: NOT_SET_ANYWHERE}]\n")
    assert main(["loadtest", "http://127.0.0.1:9", "--workload", str(workload)]) == 2
    error = capsys.readouterr().err
    assert error == "penstock: flow a: the environment variable NOT_SET_ANYWHERE is not set\n"
