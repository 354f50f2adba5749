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

STEADINESS = (
    "Three estimates move the limit: the mean lengths (prefill per output token, over the last hundred requests), the "
    "margin and the engine's pace. The nearer the target is to the time of an empty step, the more seats each of their "
    "errors is worth. The margin's quantile is noisy for what it is: requests that run "
    "together are late together, so that 20 s hold one to four independent batches; therefore the margin rests once it "
    "is right, and what is left on most seeds is the lengths and the pace. Each can be made steadier at a "
    "price paid elsewhere: slower lengths where answers are not streamed; a margin that looks "
    "back for a minute, or for half of the time since the last change, where answers are not streamed and where the "
    "engine or the mix changes, since the way to the new level judges for as long; a slower pace, a pace that asks for "
    "two ticks, or a wider dead band of the limit where the engine becomes slower."
)
# By scenario and measure: why the threshold is missed, where it is.
MISSED: dict[str, dict[str, str]] = {
    "B": {
        "goodput 22 ms": "At the tightest target a seat is two per cent of the batch, and a limit that errs towards "
        "the target's safe side by one seat shows. " + STEADINESS,
        "cv": STEADINESS,
    },
    "C": {
        "attainment": "Counted are all requests that end in the minute after, also those that were running when the "
        "engine became slow: until the batch has drained to its new size they get their tokens at the slow pace of a "
        "batch that is too large. The limit itself is right within seconds (next line).",
        "goodput": "The margin that the change cost is regained by one or two per cent of the seats at a time.",
    },
    "D": {
        "settled": "What lags is the mean output of the new mix: until its first requests have ended it is expected to "
        "be that of the earlier one.",
        "returned": "The queue still holds requests of the other mix when the first one returns; they are served "
        "first.",
        "goodput": "With a few long prompts in the batch single requests are late by the prefill of others; the best "
        "static limit lets more of them be late than the target allows. That limit stands still; ours wanders with "
        "the mean lengths of the last hundred requests, since most of a seat's price is prefill.",
        "goodput back": "The window begins while requests of the other mix are still served: they have waited longest.",
    },
    "F": {
        "goodput": "The ledger promises memory for the peak that live requests will reach, from the lengths seen so "
        "far, and errs towards too little: hardly anything is computed again. Laws that get more out of this memory "
        "do so by throwing requests out (see their share of tokens computed again).",
    },
    "H": {
        "attainment bimodal": "Outputs of 3,000 tokens take minutes, and a request that was dispatched in a good "
        "minute may live through a bad one; the margin hears of it only at its end.",
        "goodput bimodal": "Outputs of 3,000 tokens take minutes: the mean output, and with it the prefill that each "
        "token drags along, is known late.",
    },
    "I": {
        "total unknown": "Without their number the proxies rise by equal steps and cut by equal shares, which makes "
        "them equal; the price is a saw-tooth whose mean lies below its tips.",
    },
    "L": {
        "error": "The limit stays on the safe side of a cliff: what it gives away in seats it does not lose in "
        "goodput (next line).",
    },
    "M": {
        "limit": "A client that reads slowly keeps its seat until it has read all but what the buffers hold, and the "
        "limit counts seats: it rises by those that the engine does not feel. That is about half of the difference on "
        "the worst seed; the other half is that two runs with noise of their own are compared (see B). Times per token "
        "of these clients are kept out of the margin, and gaps while nothing is read for them out of the measured "
        "latency.",
        "running": "Requests whose clients hold them up drain at their own pace, so that a part of the seats is "
        "empty in the engine.",
    },
    "N": {
        "tpot": "The engine computes such a prompt in chunks, each of which makes one step several times as long for "
        "everybody; a proxy can only see to it that no two of them run at once, or one right after the other.",
        "wait": "Such prompts come in clusters on some seeds, and each has to wait for those before it, since they run "
        "one at a time beside the others' tokens.",
    },
    "P": {
        "own": "A prompt that finds the prefill bound used up by its own class waits for the next step.",
        "isolated": "A step of the full engine takes more than twice that of an idle one, so that TTFT from dispatch "
        "alone is above this goal: it could be met only by keeping the engine half empty. What waiting for us adds "
        "is the line above.",
    },
    "Q": dict.fromkeys(
        ("violations", "most"),
        "In the first seconds, while the batch fills, costs are guesses.",
    ),
    "R": {
        "idle": "The limit has just risen by a twentieth in one tick, on noise of the mean lengths (see B), and "
        "prefill is paced: the new seats wait a step or two for their turn to compute their prompts.",
        "share": "The seats of the others are held by long generations and come free one by one; at the start of the "
        "burst most of them go to the tenant that has none.",
    },
    "T": {
        "goodput": "Throughput is the same over a wide range of limits; what is lost are requests just beyond the "
        "target.",
        "attainment": "Durations spread around the limit's aim; the margin needs hundreds of them to follow.",
    },
    "U": {
        "goodput cached": "Before the first answers tell it, all of each prompt is taken for prefill.",
        "attainment cached": "The share of cached tokens is learnt from answers, and the limit rises on the way.",
        "goodput both": "Embeddings wait for no token and hold their seats for a step or two; the limit, measured on "
        "the chat, leaves them less room than the best static one.",
    },
    "V": {
        "goodput": "The worst engine runs a dozen requests with long prompts: single ones are late by the prefill of "
        "others, and the static limit with the highest goodput lets more of them be late than the target allows. Where "
        "the two goals part, the target goes first: the line of limits that keep it compares like with like.",
        "attainment": "The worst of the twelve: a dozen requests with long prompts, judged a hundred at a time.",
        "typical": "Where outputs take half a minute each, the mean output is known only after that.",
    },
    "W": {
        "goodput": "On the worst engine it is the longest answers of those that ran when the engine became slower. The "
        "limits that are compared with let fewer run before that, so that fewer have to end, and most of the longest "
        "come in just within the target; beside what the law ran they are just late. Whoever runs as many as the "
        "target allows has such answers.",
        "attainment": "The same answers. Next come engines that run a dozen requests with long prompts: the margin was "
        "learnt on the fast engine, where more of them even each other out, and two answers a second do not tell "
        "better within the minute.",
        "typical": "What runs has to end before fewer run.",
    },
}

CLOSING = (
    "## Do it again",
    "",
    "`make scenarios` runs everything in two processes and writes this page, its pictures and "
    "`docs/control/results.json`. Runs are kept in `build/scenarios` by the hash of all they depend on, the code "
    "included; `python -m tests.benchmarks.scenarios --fresh` forgets them. `--only A,C` runs some of them and prints "
    "what they give; with `--seeds 1-12` Penstock's mean and worst over as many seeds, beside the same static limits.",
    "",
    "The cost of the code itself is timing, not simulation, and is measured apart: `python -m "
    "tests.benchmarks.dispatcher_cost` (scenario S).",
)
