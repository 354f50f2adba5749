"""`penstock replay` from its arguments to its output, files and exit codes."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from proxy.cli import main
from proxy.commands import replay
from proxy.laboratory.lab import Lab

Capture = pytest.CaptureFixture[str]
SHORT = ("--workload", "chat_medium", "--rate", "10", "--duration", "5")


def lines(*rows: tuple[float, str, str, int, int]) -> str:
    keys = ("t_s", "tenant", "class", "prompt_tokens", "output_tokens")
    return "".join(json.dumps(dict(zip(keys, row, strict=True))) + "\n" for row in rows)


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    """As the recorder writes: in the order of endings, with one that was refused and put out nothing."""
    path = tmp_path / "arrivals.jsonl"
    rows = [
        (100.0 + 0.2 * n, f"t{n % 3}", ("normal", "low")[n % 2], 300, 50 if n != 7 else 0) for n in range(40, 0, -1)
    ]
    path.write_text(lines(*rows), encoding="utf-8")
    return path


def document(capsys: Capture, *words: str) -> dict[str, Any]:
    assert main(["replay", *words, "--json"]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def test_a_recording_is_replayed_from_its_first_arrival(capsys: Capture, recording: Path) -> None:
    found = document(capsys, str(recording))
    assert (found["requests"], found["outputs_guessed"], found["interrupted"]) == (40, 1, False)
    assert found["seconds"] == pytest.approx(39 * 0.2)
    (only,) = found["settings"]
    assert (only["name"], only["offered"], only["served"]) == ("defaults", 40, 40)
    assert {one["name"]: one["offered"] for one in only["classes"]}["low"] == 20
    assert only["tokens_s"] == pytest.approx(40 * 50 / (39 * 0.2))
    assert len(only["moments"]) > 100 and only["moments"][0]["at_s"] == 1.0


def test_load_presses_time_together(capsys: Capture, recording: Path) -> None:
    found = document(capsys, str(recording), "--load", "4")
    assert found["seconds"] == pytest.approx(39 * 0.2 / 4)


def test_settings_stand_side_by_side_on_the_same_arrivals(capsys: Capture, tmp_path: Path) -> None:
    config = tmp_path / "own.yaml"
    config.write_text(
        "upstreams:\n  - {name: a, url: 'http://127.0.0.1:1', limit: {mode: fixed, initial: 3}}\n"
        "  - {name: b, url: 'http://127.0.0.1:2', models: [x], limit: {mode: fixed, initial: 4}}\n"
    )
    assert main(["replay", *SHORT, "--config", str(config), "--set", "limit.initial=2,target.itl_ms=30"]) == 0
    out = capsys.readouterr().out
    header = next(line for line in out.splitlines() if "own.yaml" in line)
    assert "limit.initial=2,target.itl_ms=30" in header
    found = document(capsys, *SHORT, "--config", str(config), "--set", "limit.initial=2")
    first, second = found["settings"]
    assert {one["upstream"] for one in first["moments"]} == {"a", "b"}
    assert max(one["in_flight"] for one in second["moments"]) == 2 < max(one["in_flight"] for one in first["moments"])
    assert first["offered"] == second["offered"] > 20
    assert first["ttft_p95_s"] < second["ttft_p95_s"]


def test_the_same_seed_prints_the_same_bytes(capsys: Capture) -> None:
    printed = []
    for seed in ("1", "1", "2"):
        assert main(["replay", *SHORT, "--seed", seed]) == 0
        printed.append(capsys.readouterr().out)
    assert printed[0] == printed[1] != printed[2]


@pytest.mark.parametrize(("name", "begins"), [("r.html", b"<!doctype"), ("r.svg", b"<svg"), ("r.png", b"\x89PNG")])
def test_a_picture_is_written(capsys: Capture, tmp_path: Path, name: str, begins: bytes) -> None:
    assert main(["replay", *SHORT, "--set", "limit.law=aimd", "--out", str(tmp_path / name)]) == 0
    assert (tmp_path / name).read_bytes().startswith(begins)
    assert f"picture: {tmp_path / name}" in capsys.readouterr().out


def test_the_picture_ends_with_the_load(capsys: Capture, tmp_path: Path) -> None:
    assert main(["replay", *SHORT, "--out", str(tmp_path / "r.svg")]) == 0
    ticks = re.findall(r">([\d.]+)</text>", (tmp_path / "r.svg").read_text(encoding="utf-8"))
    assert ticks[-1] == "10"  # seconds: five of arrivals, and what they run


@pytest.mark.parametrize(
    ("words", "told", "code"),
    [
        (("nowhere.jsonl",), "nowhere.jsonl: cannot be read", 2),
        (("--out", "a.pdf"), "name it *.html, *.svg or *.png", 2),
        (("--set", "limit.law"), "write KEY=VALUE", 2),
        (("--set", "limit.law=newton"), "give one of 'model', 'aimd' or 'seed'", 2),
        (("--set", "queue=[1"), "'[1' is no value", 2),
        (("--set", "target=1,target.itl_ms=3"), "set twice in different ways", 2),
        (("--profile", "abacus"), "no engine profile 'abacus'", 2),
        (("--workload", "closed"), "give --rate", 2),
        (("--workload", "nothing"), "no workload 'nothing'", 2),
        (("--rate", "0.001", "--duration", "1"), "nothing arrives", 2),
        (("--load", "0"), "is no number above 0", 2),
        (("--out", "/nonexistent/r.svg", *SHORT), "cannot be written", 1),
    ],
)
def test_what_is_wrong_is_said_in_one_line(capsys: Capture, words: tuple[str, ...], told: str, code: int) -> None:
    assert main(["replay", *words]) == code
    error = capsys.readouterr().err
    assert told in error and error.count("\n") == 1


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (("--workload", "chat_medium"), "exclude one another"),
        (("--rate", "5"), "recorded arrivals have their own times"),
    ],
)
def test_a_recording_goes_with_no_generator(capsys: Capture, recording: Path, more: tuple[str, ...], told: str) -> None:
    assert main(["replay", str(recording), *more]) == 2
    assert told in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (
            '{"t_s": 1, "tenant": "a", "class": "gold", "prompt_tokens": 1, "output_tokens": 1}\n',
            "class 'gold' is none of",
        ),
        ("no json\n", "not JSON"),
        ("", "no arrivals"),
    ],
)
def test_a_recording_that_is_wrong(capsys: Capture, tmp_path: Path, text: str, told: str) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_text(text)
    assert main(["replay", str(path)]) == 2
    error = capsys.readouterr().err
    assert told in error and error.count("\n") == 1


def test_an_interruption_keeps_what_was_simulated(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = Lab.run

    def stopped(lab: Lab, *given: Any, **named: Any) -> Lab:
        whole(lab, given[0], 3.0, **named)
        raise KeyboardInterrupt

    monkeypatch.setattr(Lab, "run", stopped)
    assert main(["replay", *SHORT, "--set", "limit.law=aimd", "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert found["interrupted"] and [one["name"] for one in found["settings"]] == ["defaults"]
    assert found["settings"][0]["offered"] > 10


def test_progress_is_shown_on_a_terminal_alone(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    assert replay.bar("x", 40.0) is None
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    show = replay.bar("x", 40.0)
    assert show is not None
    for second in range(1, 41):
        show(float(second))
    told = capsys.readouterr().err
    assert told.count("\r") == 4 and told.endswith("] 40 of 40 s\n")
