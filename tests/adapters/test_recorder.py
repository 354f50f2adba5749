from __future__ import annotations

import errno
import json
from pathlib import Path
from typing import Any

import pytest

from proxy.adapters.recorder import Recorder
from proxy.adapters.records import RequestRecord
from proxy.types import Outcome


def ended(**fields: Any) -> RequestRecord:
    base: dict[str, Any] = {"request_id": "r", "path": "/v1/chat/completions", "outcome": Outcome.SUCCESS}
    base |= {"status": 200, "duration_s": 2.0, "tenant": "acme", "class_name": "normal"}
    return RequestRecord(**base | fields)


def test_a_line_per_classified_request_with_its_time_of_arrival(tmp_path: Path) -> None:
    path = tmp_path / "arrivals.jsonl"
    for started_s in (100.0, 200.0):  # a second run appends
        recorder = Recorder(path, started_s)
        recorder.record(ended(prompt_tokens=7, output_tokens=9), started_s + 3.5)
        recorder.record(ended(class_name=""), started_s + 4.0)  # refused before it had a class
        recorder.flush()
        recorder.record(ended(outcome=Outcome.QUEUE_FULL, tenant="über", class_name="low"), started_s + 2.0)
        recorder.close()
        assert recorder.failed is None
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert lines == 2 * [
        {"t_s": 1.5, "tenant": "acme", "class": "normal", "prompt_tokens": 7, "output_tokens": 9},
        {"t_s": 0.0, "tenant": "über", "class": "low", "prompt_tokens": 0, "output_tokens": 0},
    ]


def test_a_file_that_cannot_be_opened_is_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(IsADirectoryError):
        Recorder(tmp_path, 0.0)


def test_a_full_disk_stops_the_recording_and_nothing_else() -> None:
    recorder = Recorder(Path("/dev/full"), 0.0)
    recorder.record(ended(), 1.0)
    recorder.flush()
    assert recorder.failed is not None
    assert recorder.failed.errno == errno.ENOSPC
    first = recorder.failed
    recorder.record(ended(), 2.0)
    recorder.flush()
    assert recorder.failed is first
    recorder.close()
