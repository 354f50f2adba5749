"""The demo's load: streamed chat requests of random size, Poisson arrivals, calm and busy by turns, never too many."""

from __future__ import annotations

from proxy.adapters.session import client_session
from proxy.loadtest.client.endpoint import read_endpoint
from proxy.loadtest.client.runner import Runner
from proxy.loadtest.client.watch import Sources, Watch
from proxy.loadtest.workload import Arrival, Flow, Lengths, RateStep, Workload

OUTSTANDING_MAX = 64  # more would only wait: a bound for this machine, not for the proxy
HALF_PERIOD_S = 20.0
CALM, BUSY = 0.5, 1.5  # times the mean rate
CLASSES = {"critical": 1, "high": 2, "normal": 5, "low": 2}
PROMPT_TOKENS = Lengths("exponential", 210, maximum=1400)
OUTPUT_TOKENS = Lengths("exponential", 120, maximum=500)


def demo_workload(rate: float, duration_s: float, seed: int) -> Workload:
    """`rate` requests per second on average."""
    flows = tuple(
        Flow(name, share, class_name=name, prompt_tokens=PROMPT_TOKENS, output_tokens=OUTPUT_TOKENS, ignore_eos=False)
        for name, share in CLASSES.items()
    )
    steps = tuple(RateStep(factor * rate, HALF_PERIOD_S) for factor in (CALM, BUSY))
    arrival = Arrival("steps", steps=steps)
    return Workload("demo", flows, arrival, duration_s, 0.0, seed=seed, in_flight_max=OUTSTANDING_MAX)


async def send(url: str, workload: Workload) -> None:
    """Until the workload ends or it is cancelled. What comes back is counted by the proxy, so here it is only read.

    LookupError where no model is served yet.
    """
    endpoint = read_endpoint(url)
    async with client_session() as session:
        watch = Watch(session, endpoint, Sources())
        await watch.list_models()
    if not watch.models:
        raise LookupError("no model is served yet")
    await Runner(endpoint, workload, watch.models[0]).run()
