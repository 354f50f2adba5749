"""The words of docs/control.md that are not made of results. No figure of a result is written here by hand."""

from __future__ import annotations

INTRODUCTION = (
    "# How well the limit and the queue do",
    "",
    "Made by `make scenarios`; every figure comes from its results, and the same seeds give the same bytes.",
    "",
    "Penstock decides how many requests run at an engine at once (the limit) and which of the waiting ones goes next "
    "(the queue). Here both are measured in a laboratory of virtual time: the dispatcher that serves real traffic, "
    "driven by a simulated engine with continuous batching, chunked prefill and paged memory. No copy of the law is "
    "involved, only the engine and the clients are simulated. What a simulated engine shows is how laws compare and "
    "where they fail; it is no measurement of a GPU.",
    "",
    "- **Arrivals** are open loop (Poisson, lognormal lengths): they come whatever became of the earlier ones. All "
    "laws get the same trace.",
    "- **Engine**, if nothing else is said: a 14B model on one H100, a step of 13.58 ms + 27.3 us per sequence + 0.08 "
    "us per token of cache + 39.4 us per prompt token, with 12 % of noise; prompts of 512 tokens, outputs of 256; "
    "target 40 ms per token and 0.5 s from dispatch to the first token.",
    "- **Goodput**: output tokens per second of requests that met both targets. What is refused or late adds nothing.",
    "- **Best static**: the fixed limit with the highest goodput, from a sweep in steps of 5 % on the same traces. A "
    "law cannot know it in advance; figures above 1 are possible because the sweep has steps and laws adapt.",
    "- **Worst seed**: each figure is that of the worst of the seeds, for Penstock and for the others alike.",
    "- **The others** are given the limit alone, as they come, with the time per output token as their latency where "
    "they need one: the signal that suits them best. *Seed, end to end* shows what the usual signal does.",
    "",
    "## In short",
    "",
)

# Told where the threshold of that name is missed; under `always`, in any case.
MISSED: dict[str, dict[str, str]] = {}

CLOSING = (
    "## Do it again",
    "",
    "`make scenarios` runs everything in two processes and writes this page, its pictures and "
    "`docs/control/results.json`. Runs are kept in `build/scenarios` by the hash of all they depend on, the code "
    "included; `python -m tests.benchmarks.scenarios --fresh` forgets them. `--only A,C` runs some of them and prints "
    "what they give.",
    "",
    "The cost of the code itself is timing, not simulation, and is measured apart: `python -m "
    "tests.benchmarks.dispatcher_cost` (scenario S).",
)
