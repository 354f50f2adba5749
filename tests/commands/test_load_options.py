from __future__ import annotations

from argparse import Namespace
from pathlib import Path

import pytest

from proxy.cli import parser
from proxy.commands import load_options as options
from proxy.commands.base import CommandError


def parsed(*words: str) -> Namespace:
    return parser().parse_args(["loadtest", "http://127.0.0.1:9", *words])


def test_the_workload_stays_as_it_is_unless_something_is_said() -> None:
    workload = options.workload_of(parsed())
    assert (workload.name, workload.arrival.rate, workload.duration_s, workload.warmup_s) == ("chat_medium", 20, 45, 5)


def test_everything_said_changes_the_workload() -> None:
    words = (
        "--workload mixed --rate 3 --duration 9 --warmup 0 --seed 5 --in-flight-max 7 --timeout 11 --silence 2 "
        "--prompt-tokens 12 --output-tokens 13 --no-stream"
    )
    workload = options.workload_of(parsed(*words.split()))
    assert (workload.arrival.process, workload.arrival.rate, workload.arrival.cv) == ("gamma", 3, 1.5)
    assert (workload.duration_s, workload.warmup_s, workload.seed, workload.in_flight_max) == (9, 0, 5, 7)
    assert (workload.timeout_s, workload.silence_s, len(workload.flows)) == (11, 2, 4)
    assert {(flow.prompt_tokens.mean, flow.output_tokens.mean, flow.stream) for flow in workload.flows} == {
        (12, 13, False)
    }


def test_loops_may_be_exchanged_and_a_number_of_requests_lifts_the_time() -> None:
    closed = options.workload_of(parsed("--concurrency", "4", "--requests", "10"))
    assert (closed.closed, closed.arrival.concurrency, closed.requests) == (True, 4, 10)
    assert closed.duration_s > 86_400
    assert options.workload_of(parsed("--workload", "closed", "--rate", "2")).arrival.process == "poisson"
    assert options.workload_of(parsed("--workload", "batch", "--duration", "5")).requests == 0
    assert options.workload_of(parsed("--requests", "5", "--duration", "6")).duration_s == 6


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--rate 1 --concurrency 2", "--rate and --concurrency exclude one another"),
        ("--workload recorded --rate 1", "recorded arrivals have their own times"),
        ("--workload nothing", "no workload 'nothing'; give a file or one of: batch, chat_high"),
    ],
)
def test_contradictions_are_wrong_use(words: str, message: str) -> None:
    with pytest.raises(CommandError) as error:
        options.workload_of(parsed(*words.split()))
    assert error.value.code == 2
    assert message in str(error.value)


@pytest.mark.parametrize(
    "words", ["--rate 0", "--concurrency 0", "--requests 1.5", "--seed -1", "--warmup -1", "--slo fast", "--duration x"]
)
def test_values_out_of_range_are_wrong_use(words: str) -> None:
    with pytest.raises(CommandError) as error:
        parsed(*words.split())
    assert error.value.code == 2


def test_endpoint_keys_and_sources(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_KEY", "sesame")
    arguments = parsed("--key-env", "SOME_KEY", "--header", "x-a: 1", "--admin", "http://h:1/", "--dcgm", "http://g:2")
    endpoint = options.endpoint_of(arguments)
    assert (endpoint.key, endpoint.headers) == ("sesame", (("x-a", "1"),))
    sources = options.sources_of(arguments, endpoint)
    assert (sources.engine, sources.admin, sources.dcgm) == ("", "http://h:1", "http://g:2")
    assert options.sources_of(parsed(), endpoint).engine == "http://127.0.0.1:9"
    assert options.sources_of(parsed("--engine", "http://e:3/v1"), endpoint).engine == "http://e:3"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--key-env", "NOT_THERE"], "the environment variable NOT_THERE is not set"),
        (["--header", "x a"], "write NAME:VALUE"),
        (["--admin", "h:1"], "--admin 'h:1': give an http"),
        (["--ca", "none.pem"], "tls.ca: cannot use"),
    ],
)
def test_what_cannot_be_used_is_named(words: list[str], message: str) -> None:
    arguments = parsed(*words)
    if "--ca" in words:
        arguments.url = "https://h"
    with pytest.raises(CommandError, match=message) as error:
        options.sources_of(arguments, options.endpoint_of(arguments))
    assert error.value.code == 2


@pytest.mark.parametrize(("name", "base"), [("a/s", "a/s"), ("s.json", "s"), ("s.png", "s"), ("v1.2", "v1.2")])
def test_files_of_one_name(name: str, base: str) -> None:
    assert options.base_of(Path(name)) == Path(base)


def test_a_path_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CommandError, match=r"cannot write .* give another path"):
        options.write(tmp_path / "file" / "below", lambda path: path.mkdir())
