"""An upstream in closed form, for one or several sizers: x = a + s N with noise, every seat always taken."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from proxy.admission.batch_sizer import AdaptiveBatchSizer, TickInput
from proxy.types import Sample, Telemetry, Work


@dataclass(frozen=True, slots=True)
class Fluid:
    """a: seconds of an empty step, s: seconds per request, tokens of prompt and output."""

    a: float = 0.014
    s: float = 0.000175
    prompt: float = 512
    output: float = 256
    noise: float = 0.05


def generation(tpot_s: float, epoch: int = 0, streaming: bool = True, output: int = 256, prompt: int = 512) -> Sample:
    """A finished success."""
    return Sample(
        work=Work.GENERATE,
        streaming=streaming,
        prompt_tokens=prompt,
        cached_tokens=0,
        output_tokens=output,
        ttft_s=0.05 if streaming else None,
        tpot_s=tpot_s if streaming else None,
        duration_s=tpot_s * output,
        epoch=epoch,
    )


def single(work: Work, duration_s: float, epoch: int = 0) -> Sample:
    """A finished request without tokens of its own: embedding, audio."""
    return Sample(work, False, 100, 0, 0, None, None, duration_s, epoch)


def ticks(
    sizers: list[AdaptiveBatchSizer],
    seconds: int,
    plant: Fluid = Fluid(),
    seed: int = 1,
    since_s: float = 0.0,
    work: Work = Work.GENERATE,
    streaming: bool = True,
    gauge: bool = False,
    demand: Callable[[float], float] = lambda _now: float("inf"),
    engine: Callable[[float, int], Telemetry] | None = None,
) -> list[list[float]]:
    """Tick each sizer once a second; the limits after each second. `gauge`: the engine tells its running total."""
    rng = random.Random(seed)
    limits = []
    for second in range(1, seconds + 1):
        now = since_s + second
        own = [int(min(sizer.seats, demand(now))) for sizer in sizers]
        total = sum(own)
        latency_s = (plant.a + plant.s * total) * rng.lognormvariate(0, plant.noise)
        for sizer, n in zip(sizers, own, strict=True):
            if work is Work.EMBED or not streaming:
                life_s = latency_s if work is Work.EMBED else latency_s * plant.output
                sample = (
                    single(work, life_s, sizer.epoch)
                    if work is Work.EMBED
                    else generation(latency_s, sizer.epoch, False)
                )
                for _ in range(min(max(int(n / life_s), 1), 40)):
                    sizer.observe(sample, now)
            tokens = n / latency_s if streaming and work is Work.GENERATE else 0.0
            sizer.tick(
                TickInput(
                    now=now,
                    duration_s=1.0,
                    gap_s=float(n) if tokens else 0.0,
                    tokens=tokens,
                    running=float(n),
                    prefill_tokens=tokens * plant.prompt / plant.output,
                    in_flight=n,
                    prefill_out_tokens=0.0,
                    queue_share=1.0 if demand(now) > n else 0.0,
                    mean_prompt_tokens=plant.prompt,
                    mean_output_tokens=plant.output,
                    engine=None if engine is None else engine(now, total),
                    engine_total_running=float(total) if gauge else None,
                )
            )
        limits.append([sizer.limit for sizer in sizers])
    return limits
