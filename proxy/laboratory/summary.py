"""A run in a few figures, for people: what was served, how fast, and what became of the rest.

TTFT is what the client sees, our queue included; attainment is that of what was served, goodput that of all that was
offered: output tokens per second, over the time from the first arrival to the last, of requests within both targets.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from proxy.admission.limits import Target
from proxy.laboratory.bench import Request
from proxy.laboratory.lab import Lab
from proxy.laboratory.measures import attainment, mean, met, quantile, served
from proxy.types import Outcome


@dataclass(frozen=True, slots=True)
class ClassSummary:
    """One class: requests offered and served, p95 of TTFT, share of the offered that was served within both targets."""

    name: str
    offered: int
    served: int
    ttft_p95_s: float
    good_share: float


@dataclass(frozen=True, slots=True)
class Summary:
    """Times in seconds. `refused` by outcome; `limit` and `in_flight` are means while requests arrive; `steps`: how
    often the limit changed."""

    offered: int
    served: int
    unfinished: int
    refused: dict[str, int]
    goodput_tokens_s: float
    tokens_s: float
    attainment: float
    ttft_p50_s: float
    ttft_p95_s: float
    ttft_p99_s: float
    itl_p50_s: float
    itl_p95_s: float
    wait_p95_s: float
    limit: float
    in_flight: float
    steps: int
    recomputed_share: float
    classes: tuple[ClassSummary, ...]


def ttft_s(request: Request) -> float:
    """From arrival to the first token."""
    return request.wait_s + request.engine_ttft_s


def summarize(lab: Lab, target: Target, class_names: Sequence[str]) -> Summary:
    """What happened so far in a run."""
    requests = lab.requests
    done = served(requests)
    end_s = max((one.arrival.at_s for one in requests), default=0.0)
    span_s = max(end_s - min((one.arrival.at_s for one in requests), default=0.0), 1e-9)
    good = [one for one in done if met(one, target)]
    loaded = [one for one in lab.moments if one.at_s <= end_s]
    counters = [bench.engine.counters for bench in lab.benches.values()]
    computed = sum(one.prompt_tokens + one.generation_tokens for one in counters)
    outcomes = Counter(one.outcome for one in requests)
    refused = {name.value: count for name, count in outcomes.items() if name not in (None, Outcome.SUCCESS)}
    ttft = [ttft_s(one) for one in done]
    itl = [one.itl_s for one in done if one.arrival.output_tokens > 1]
    return Summary(
        offered=len(requests),
        served=len(done),
        unfinished=outcomes[None],
        refused=dict(sorted(refused.items())),
        goodput_tokens_s=sum(one.arrival.output_tokens for one in good) / span_s,
        tokens_s=sum(one.arrival.output_tokens for one in done) / span_s,
        attainment=attainment(requests, target),
        ttft_p50_s=quantile(ttft, 0.5),
        ttft_p95_s=quantile(ttft, 0.95),
        ttft_p99_s=quantile(ttft, 0.99),
        itl_p50_s=quantile(itl, 0.5),
        itl_p95_s=quantile(itl, 0.95),
        wait_p95_s=quantile((one.wait_s for one in done), 0.95),
        limit=mean(one.limit for one in loaded),
        in_flight=mean(one.in_flight for one in loaded),
        steps=len(lab.steps),
        recomputed_share=sum(one.recomputed_tokens for one in counters) / max(computed, 1),
        classes=tuple(_of_class(requests, target, rank, name) for rank, name in enumerate(class_names)),
    )


def _of_class(requests: Sequence[Request], target: Target, rank: int, name: str) -> ClassSummary:
    own = [one for one in requests if one.arrival.class_index == rank]
    done = served(own)
    good = sum(met(one, target) for one in done)
    return ClassSummary(name, len(own), len(done), quantile(map(ttft_s, done), 0.95), good / max(len(own), 1))
