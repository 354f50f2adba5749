"""The options of `plan`, by group."""

from __future__ import annotations

from argparse import ArgumentTypeError
from collections.abc import Callable

from proxy.commands.base import Commands

PRESETS = ("batch-size-reasoning", "t4-roofline")
FRACTION_MAX = 1.0


def whole(low: int = 1, high: int = 2**31) -> Callable[[str], int]:
    def parse(text: str) -> int:
        if text.isascii() and text.isdigit() and len(text) < 12 and low <= int(text) <= high:
            return int(text)
        raise ArgumentTypeError(f"{text!r} is no whole number from {low} to {high}")

    return parse


def number(low: float, high: float) -> Callable[[str], float]:
    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = float("nan")
        if low <= value <= high:
            return value
        raise ArgumentTypeError(f"{text!r} is no number from {low:g} to {high:g}")

    return parse


def declare_model(group: Commands) -> None:
    group.add_argument(
        "--model", metavar="NAME|FILE|DIR|-", help="bundled name, config.json, its folder, or - for stdin"
    )
    group.add_argument("--accelerator", metavar="NAME", help="card, such as h100, a100-40gb, t4 (--list shows all)")
    group.add_argument("--count", type=whole(high=16384), help="number of cards (default tp x pp x dp)")
    group.add_argument("--tp", type=whole(high=4096), help="tensor parallelism (default count / pp / dp)")
    group.add_argument("--pp", type=whole(high=1024), default=1, help="pipeline parallelism (default 1)")
    group.add_argument("--dp", type=whole(high=4096), default=1, help="data parallelism (default 1)")
    group.add_argument("--dcp", type=whole(high=1024), default=1, help="decode-context parallelism (default 1)")
    group.add_argument("--weight-dtype", default="auto", help="auto (from the config), bf16, fp8, int4, nvfp4, ...")
    group.add_argument("--kv-dtype", default="auto", help="auto, bf16, fp8, nvfp4, q8_0, ...")
    group.add_argument("--gpu-memory-gib", type=number(0.5, 4096), help="memory of one card; overrides the table")
    group.add_argument("--weights-gib", type=number(0, 4096), help="weights on one card; overrides files and estimate")
    group.add_argument("--free-memory-gib", type=number(0, 4096), help="free after load (TensorRT-LLM prints it)")
    group.add_argument("--kv-bytes-per-token", type=whole(), help="per rank; for a variant that is not modelled")
    group.add_argument("--list", action="store_true", help="list bundled models and accelerators")


def declare_engine(group: Commands) -> None:
    group.add_argument("--engine", default="vllm", help="vllm (default), sglang, tensorrt-llm, tgi, llama.cpp")
    group.add_argument("--engine-version", default="", metavar="X.Y", help="changes what the fraction covers")
    group.add_argument("--fraction", type=number(0.01, FRACTION_MAX), help="memory fraction (default: the engine's)")
    group.add_argument("--max-model-len", type=whole(), help="longest request in tokens (default: the model's)")
    group.add_argument("--max-num-seqs", type=whole(high=2**20), help="sequences in one step (default: the engine's)")
    group.add_argument("--max-num-batched-tokens", type=whole(), help="tokens in one step (default: the engine's)")
    group.add_argument("--block-size", type=whole(high=4096), help="tokens in one cache block (default: the engine's)")
    group.add_argument("--speculative-layers", type=whole(0, 64), default=0, help="draft layers that keep a cache")
    group.add_argument("--language-model-only", action="store_true", help="the vision tower is not loaded")
    group.add_argument("--enforce-eager", action="store_true", help="no CUDA graphs")
    group.add_argument(
        "--disable-hybrid-kv-cache-manager", action="store_true", help="sliding layers cost as much as full ones"
    )


def declare_aims(group: Commands) -> None:
    group.add_argument("--utilization", type=number(0.001, 1), default=0.25, help="typical share of the length (0.25)")
    group.add_argument("--latency-factor", type=number(0.01, 1), default=0.60, help="latency haircut (0.60)")
    group.add_argument("--itl-ms", type=number(0.01, 1e6), help="target time per output token: adds the SLO batch")
    group.add_argument("--ttft-ms", type=number(0.01, 1e7), help="target time to first token: longest prompt")
    group.add_argument("--use-case", metavar="NAME", help="interactive, mixed, batch or longform")
    group.add_argument("--preset", choices=PRESETS, help="a worked example, re-derived step by step")
    group.add_argument("--memory-limit-gib", type=number(0.5, 4096), help="most requests within that memory per card")
    group.add_argument("--isl", type=whole(), default=1024, help="prompt tokens, for --trtllm-configs (1024)")
    group.add_argument("--osl", type=whole(), default=1024, help="output tokens, for --trtllm-configs (1024)")


def declare_output(group: Commands) -> None:
    group.add_argument("--calibrate", metavar="LOG|URL", help="start-up log or /metrics URL to solve the overhead from")
    group.add_argument("--from", dest="live", metavar="URL", help="running engine to show beside the plan")
    group.add_argument("--trtllm-configs", metavar="DIR", help="TensorRT-LLM checkout to find the nearest recipe in")
    group.add_argument("--flags", metavar="ENGINE", help="print flags for an engine, dynamo, penstock, or all")
    group.add_argument("--json", action="store_true", help="print JSON")
    group.add_argument("--explain", action="store_true", help="show each step, the advice and its tables")
    group.add_argument("--plot", metavar="FILE", help="write charts to FILE.html or FILE.png")
