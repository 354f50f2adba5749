"""The command from its arguments to its output and exit code."""

from __future__ import annotations

import asyncio
import json
import os
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from proxy.commands import plan
from proxy.commands.base import CommandError, Parser
from tests.adapters.scripted_engine import reply, scripted_engine
from tests.planning.support import PLAIN

Capture = pytest.CaptureFixture[str]
BASE = ("--model", "llama-3.1-8b", "--accelerator", "h100", "--max-model-len", "8192")


def run(*words: str) -> int:
    parser = Parser(prog="penstock")
    plan.declare(parser.add_subparsers(required=True))
    arguments = parser.parse_args(["plan", *words])
    return int(arguments.run(arguments))


def output(capsys: Capture, *words: str) -> str:
    assert run(*words) == 0
    return capsys.readouterr().out


def document(capsys: Capture, *words: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(output(capsys, *words, "--json"))
    return found


def test_a_table_for_people(capsys: Capture) -> None:
    text = output(capsys, *BASE, "--use-case", "mixed", "--itl-ms", "50", "--memory-limit-gib", "40", "--flags", "vllm")
    for part in (
        "= KV cache",
        "seats, worst case",
        "seats, latency target",
        "within 40 GiB",
        "use case: mixed",
        "vllm serve",
    ):
        assert part in text


def test_json_for_programs(capsys: Capture) -> None:
    found = document(capsys, *BASE, "--explain", "--memory-limit-gib", "40", "--flags", "all")
    assert found["kv_bytes_per_token_per_rank"] == 131072
    assert found["memory_limit"]["largest_batch"] > 0
    assert [item["engine"] for item in found["flags"]][-2:] == ["dynamo", "penstock"]
    assert {item["basis"] for item in found["advice"]} == {"computed", "rule of thumb"}
    assert any("131,072 B" in line for line in found["explain"])


def test_every_flag_reaches_the_plan(capsys: Capture) -> None:
    changes: list[tuple[str, ...]] = [
        ("--count", "2"), ("--tp", "2"), ("--pp", "2"), ("--dp", "2"), ("--dcp", "2"), ("--weight-dtype", "fp8"),
        ("--kv-dtype", "fp8"), ("--gpu-memory-gib", "60"), ("--weights-gib", "10"), ("--kv-bytes-per-token", "999"),
        ("--engine", "sglang"), ("--engine-version", "0.21"), ("--fraction", "0.8"), ("--max-num-seqs", "64"),
        ("--max-num-batched-tokens", "99999"), ("--block-size", "256"), ("--speculative-layers", "1"),
        ("--utilization", "0.5"), ("--latency-factor", "0.5"), ("--itl-ms", "9"),
    ]  # fmt: skip
    plain = document(capsys, *BASE)
    for words in changes:
        assert document(capsys, *BASE, *words) != plain, words
    free = ("--engine", "trtllm", "--free-memory-gib", "20")
    assert document(capsys, *BASE, *free)["kv_bytes"] == 18 * 2**30
    eager = document(capsys, *BASE, "--enforce-eager")
    assert len(eager["budget"]) == len(plain["budget"]) - 1
    windowed = ("--model", "mistral-7b-v0.1", "--accelerator", "h100")
    whole = document(capsys, *windowed, "--disable-hybrid-kv-cache-manager")["seats"]["worst_case"]
    assert whole < document(capsys, *windowed)["seats"]["worst_case"]
    assert "longest prompt" in output(capsys, *BASE, "--ttft-ms", "100")


def test_extras_are_told_in_the_text(capsys: Capture) -> None:
    text = output(capsys, *BASE, "--explain", "--flags", "all", "--max-num-seqs", "9999")
    assert "advice (rule of thumb)" in text
    assert "GiB per GPU" in text
    assert "# conflict: max_num_seqs 9999 exceeds" in text
    assert "free_gpu_memory_fraction: 0.9" in text
    small = ("--model", "qwen3-32b", "--accelerator", "l4", "--max-model-len", "131072")
    assert "note: one request of 131072 tokens" in output(capsys, *small)


def test_lists(capsys: Capture) -> None:
    assert "models: deepseek-r1" in output(capsys, "--list")
    assert "h100-sxm" in document(capsys, "--list")["accelerators"]


def test_calibration_from_a_log(capsys: Capture, tmp_path: Path) -> None:
    log = tmp_path / "start.log"
    log.write_text("Available KV cache memory: 40.00 GiB\nModel loading took 15.0 GiB")
    found = document(capsys, *BASE, "--calibrate", str(log))
    assert found["kv_bytes"] == pytest.approx(40 * 2**30, abs=4)
    assert found["budget"][-1]["provenance"] == "live"


def test_a_running_engine_beside_the_plan(capsys: Capture) -> None:
    pages = {
        "/v1/models": reply('{"data": [{"id": "m", "owned_by": "vllm", "max_model_len": 8192}]}'),
        "/metrics": reply('vllm:cache_config_info{num_gpu_blocks="20000",block_size="16"} 1\n'),
    }

    async def ask() -> tuple[dict[str, Any], str, dict[str, Any]]:
        async with scripted_engine(pages) as engine:
            both = await asyncio.to_thread(document, capsys, *BASE, "--from", engine.url)
            alone = await asyncio.to_thread(output, capsys, "--from", engine.url)
            alone_json = await asyncio.to_thread(document, capsys, "--from", engine.url)
            solved = await asyncio.to_thread(document, capsys, *BASE, "--calibrate", engine.url)
            assert solved["kv_tokens"] == 320_000
            return both, alone, alone_json

    both, alone, alone_json = asyncio.run(ask())
    assert both["live"]["kv_tokens"] == 320_000
    assert both["live"]["plan_over_live"] == pytest.approx(both["kv_tokens"] / 320_000, abs=0.001)
    assert "320,000" in alone
    assert alone_json["live"]["engine"] == "vllm"


def test_reference_configurations(capsys: Capture, tmp_path: Path) -> None:
    (tmp_path / "lookup.yaml").write_text(
        "- {model: m, arch: a, gpu: H100, isl: 1, osl: 1, concurrency: 1, num_gpus: 1, config_path: a.yaml}\n"
    )
    assert "no entry for" in output(capsys, *BASE, "--trtllm-configs", str(tmp_path))


@pytest.mark.parametrize("below", ["", "examples/configs/database"])
def test_a_checkout_of_reference_configurations(capsys: Capture, tmp_path: Path, below: str) -> None:
    """As upstream lays them out: paths from the checkout's root, some entries without an architecture."""
    folder = tmp_path / "examples" / "configs" / "database"
    (folder / "H100").mkdir(parents=True)
    entry = "- {model: %s, gpu: H100_SXM, isl: 1024, osl: 1024, concurrency: %d, num_gpus: 1, config_path: %s}\n"
    path = "examples/configs/database/H100/1k1k_tp1_conc%d.yaml"
    lines = [entry % ("nvidia/Meta-Llama-3.1-8B", seats, path % seats) for seats in (4, 64)]
    (folder / "lookup.yaml").write_text("".join([*lines, entry % ("other", 8, path % 8)]))
    (folder / "H100" / "1k1k_tp1_conc64.yaml").write_text("max_batch_size: 64\nkv_cache_config: {dtype: fp8}\n")
    found = document(capsys, *BASE, "--trtllm-configs", str(tmp_path / below))["reference"]
    assert (found["matched_by"], found["concurrency"], found["max_batch_size"]) == ("name", 64, 64)
    assert "check both" in found["disagreement"]


def test_an_unknown_model_is_planned_with_a_note_or_refused(capsys: Capture, tmp_path: Path) -> None:
    file = tmp_path / "config.json"
    new = PLAIN | {"architectures": ["NovaForCausalLM"], "model_type": "nova"}
    file.write_text(json.dumps(new))
    mine = ("--model", str(file), "--accelerator", "h100")
    assert document(capsys, *mine)["notes"][0].startswith("unknown model type 'NovaForCausalLM'")
    for more in ((), ("--explain",)):
        assert "note: unknown model type 'NovaForCausalLM': planned as a plain decoder" in output(capsys, *mine, *more)
    file.write_text(json.dumps(new | {"kv_rank": 4}))
    with pytest.raises(CommandError, match=r"'kv_rank' may change the KV cache.*--kv-bytes-per-token"):
        run(*mine)
    given = document(capsys, *mine, "--kv-bytes-per-token", "4096")
    assert (given["kv_bytes_per_token_per_rank"], given["notes"]) == (4096, [])


@pytest.mark.parametrize(("name", "start"), [("a.png", b"\x89PNG"), ("a.html", b"<!doctype html>")])
def test_plots(capsys: Capture, tmp_path: Path, name: str, start: bytes) -> None:
    output(capsys, *BASE, "--plot", str(tmp_path / name))
    assert (tmp_path / name).read_bytes().startswith(start)


@pytest.mark.parametrize(
    ("words", "code", "line"),
    [
        ((), 2, "--model is missing"),
        (("--model", "llama-3.1-8b"), 2, "--accelerator is missing"),
        ((*BASE, "--count", "many"), 2, "'many' is no whole number"),
        ((*BASE, "--fraction", "2"), 2, "'2' is no number from 0.01 to 1"),
        ((*BASE, "--fraction", "x"), 2, "'x' is no number"),
        ((*BASE, "--plot", "a.gif"), 2, "ends in .html or .png"),
        ((*BASE, "--preset", "x"), 2, "invalid choice"),
        ((*BASE, "--plot", "/no/such/folder/a.png"), 1, "cannot be written"),
        ((*BASE, "--tp", "5"), 1, "--tp 5 does not divide"),
        ((*BASE, "--use-case", "x"), 1, "--use-case 'x' is unknown"),
        ((*BASE, "--calibrate", "/no/such.log"), 1, "no such file"),
        ((*BASE, "--from", "ftp://x"), 1, "--from and --calibrate take"),
        (("--model", "x", "--accelerator", "h100"), 1, "neither a file"),
        (("--model", "llama-3.1-8b", "--accelerator", "x1"), 1, "--accelerator 'x1' is unknown"),
    ],
)
def test_mistakes_get_one_line_and_a_code(words: tuple[str, ...], code: int, line: str) -> None:
    with pytest.raises(CommandError, match=line.replace(".", r"\.")) as caught:
        run(*words)
    assert caught.value.code == code
    assert len(caught.value.lines) == 1
    assert "\n" not in caught.value.lines[0]


def test_a_plan_without_counts_prints_no_roofline(capsys: Capture, tmp_path: Path) -> None:
    bare = {key: value for key, value in PLAIN.items() if key not in ("hidden_size", "num_attention_heads")}
    (tmp_path / "config.json").write_text(json.dumps(bare | {"head_dim": 64}))
    model = ("--model", str(tmp_path / "config.json"), "--accelerator", "h100", "--weights-gib", "1")
    assert "roofline" not in output(capsys, *model)
    assert document(capsys, *model)["advice"] == []


PROBE = """
import argparse, sys
from proxy.commands import plan
parser = argparse.ArgumentParser()
plan.declare(parser.add_subparsers())
arguments = parser.parse_args(["plan", *sys.argv[1:]])
arguments.run(arguments)
sys.stderr.write(" ".join(name for name in sys.modules if name.split(".")[0] in {"aiohttp", "uvloop", "httptools"}
    or name.startswith(("proxy.server", "proxy.dispatcher", "proxy.admission", "proxy.settings"))))
"""


def test_it_starts_within_300_ms_of_cpu_and_loads_no_server_code() -> None:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    root = Path(__file__).parent.parent.parent
    done = subprocess.run(
        [sys.executable, "-c", PROBE, *BASE], cwd=root, env=dict(os.environ), capture_output=True, text=True, check=True
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.stderr == ""
    assert "= KV cache" in done.stdout
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 0.3
