from __future__ import annotations

import json
from pathlib import Path

import pytest

from proxy.loadtest import ResultsError, WorkloadError, bundled, load_results, load_workload, save_json, save_records
from proxy.loadtest.client.files import save
from tests.loadtest.support import record
from tests.loadtest.test_results import made

NAMES = {"chat_medium", "chat_high", "closed", "long_context", "short_burst", "batch", "mixed", "recorded"}


def test_every_bundled_workload_can_be_read() -> None:
    assert bundled().keys() == NAMES
    loaded = {name: load_workload(name) for name in NAMES}
    assert (loaded["chat_medium"].arrival.rate, loaded["chat_high"].arrival.rate) == (20, 50)
    assert all(workload.description for workload in loaded.values())
    assert {flow.class_name for flow in loaded["mixed"].flows} == {"critical", "high", "normal", "low"}
    assert len(loaded["recorded"].trace) == 120
    assert not loaded["batch"].flows[0].stream


def test_files_of_one_s_own(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("arrival: {process: constant, rate: 3}\n")
    (tmp_path / "trace.jsonl").write_text('{"t_s": 5, "prompt_tokens": 3, "output_tokens": 4}\n')
    (tmp_path / "both.yaml").write_text("arrival: {process: trace}\ntrace: {file: trace.jsonl, speed: 2}\n")
    assert load_workload(str(tmp_path / "mine.yaml")).arrival.rate == 3
    assert load_workload(str(tmp_path / "trace.jsonl")).trace[0].prompt_tokens == 3
    assert load_workload(str(tmp_path / "both.yaml")).name == "both"


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("none.yaml", None, "no workload '{path}'; give a file or one of: batch, "),
        ("none.jsonl", None, "{path}: cannot be read (No such file"),
        ("bad.yaml", "a: [", "bad.yaml"),
        ("bad.yaml", "rate: 3", "bad.yaml: rate: no such key"),
        ("bad.yaml", "trace: {file: gone.jsonl}", "gone.jsonl: cannot be read"),
        ("bad.yaml", "trace: {speed: 0, file: x}", "bad.yaml: trace.speed: must be above 0"),
        ("bad.jsonl", "{}", "bad.jsonl:1.t_s: missing"),
    ],
)
def test_what_cannot_be_read_is_told(tmp_path: Path, name: str, text: str | None, message: str) -> None:
    path = tmp_path / name
    if text is not None:
        path.write_text(text)
    with pytest.raises(WorkloadError) as error:
        load_workload(str(path))
    assert message.format(path=path) in str(error.value)


def test_a_trace_that_is_too_long_or_not_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"\xff\xfe\n")
    with pytest.raises(WorkloadError, match="not UTF-8"):
        load_workload(str(path))
    monkeypatch.setattr("proxy.loadtest.client.files.TRACE_BYTES_MAX", 1)
    with pytest.raises(WorkloadError, match="cut it"):
        load_workload(str(path))


def test_results_are_saved_whole_and_read_again(tmp_path: Path) -> None:
    path = tmp_path / "new" / "a.json"
    save_json(path, made())
    assert load_results(path) == made()
    save_json(path, made("closed"))
    assert load_results(path)["notes"] == made("closed")["notes"]
    save_records(tmp_path / "r.jsonl", [record(), record()])
    assert [json.loads(line)["ending"] for line in (tmp_path / "r.jsonl").read_text().splitlines()] == ["success"] * 2
    assert sorted(one.name for one in tmp_path.iterdir()) == ["new", "r.jsonl"]


def test_what_cannot_be_saved_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError, match="directory"):
        save(tmp_path / "folder", "text")
    assert [one.name for one in tmp_path.iterdir()] == ["folder"]


def test_other_files_are_no_results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.json"
    with pytest.raises(ResultsError, match=r"cannot be read \(No such file"):
        load_results(path)
    path.write_text("{")
    with pytest.raises(ResultsError, match="is not JSON"):
        load_results(path)
    path.write_text("{}")
    with pytest.raises(ResultsError, match="schema None"):
        load_results(path)
    monkeypatch.setattr("proxy.loadtest.client.files.RESULTS_BYTES_MAX", 1)
    with pytest.raises(ResultsError, match="too large"):
        load_results(path)
