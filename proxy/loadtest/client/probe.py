"""One small request before a test: which optional fields does this endpoint refuse?

Engines differ in what they accept beside the API's core: `ignore_eos` is theirs, `stream_options` is younger than some
servers, and some models want `max_completion_tokens` for `max_tokens`. A 400 or 422 that names such a field leaves it
out of the test and is told. Everything else about the endpoint is the test's own to find.
"""

from __future__ import annotations

from collections.abc import Mapping

import aiohttp
import orjson
from yarl import URL

from proxy.adapters.fetch import reason_of
from proxy.loadtest.client.endpoint import Endpoint
from proxy.loadtest.prompts import OPTIONAL, PATHS, fields
from proxy.loadtest.workload import Flow, Workload

TIMEOUT_S = 10.0
ANSWER_BYTES = 4096
REFUSALS = (400, 422)


async def probe(
    session: aiohttp.ClientSession, endpoint: Endpoint, workload: Workload, model: str
) -> tuple[frozenset[str], list[str]]:
    """Names of fields to leave out, and what to tell about them."""
    left_out: set[str] = set()
    notes = []
    flow = workload.flows[0]
    for _ in OPTIONAL:
        try:
            status, text = await _ask(session, endpoint, flow, model, left_out)
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
            notes.append(f"a first request before the test failed: {reason_of(error)}")
            break
        refused = [name for name in OPTIONAL if name in text and name not in left_out]
        if status not in REFUSALS or not refused:
            break
        left_out.add(refused[0])
        notes.append(f"the endpoint refuses {refused[0]}; it is left out" + _consequence(refused[0]))
    return frozenset(left_out), notes


def _consequence(name: str) -> str:
    told: Mapping[str, str] = {
        "ignore_eos": ": outputs end when the model ends them, so their lengths are its own",
        "stream_options": ": streams may tell no usage, then events count as tokens",
        "max_tokens": " for max_completion_tokens",
    }
    return told[name]


async def _ask(
    session: aiohttp.ClientSession, endpoint: Endpoint, flow: Flow, model: str, left_out: set[str]
) -> tuple[int, str]:
    body = orjson.dumps(fields(flow, model, "the", 1, left_out))
    lines = endpoint.head(flow).decode().split("\r\n")[1:-1]
    headers = dict(line.split(": ", 1) for line in lines)
    async with session.post(
        URL(f"{endpoint.root}{PATHS[flow.api]}", encoded=True),
        data=body,
        headers=headers,
        ssl=endpoint.tls or True,
        timeout=aiohttp.ClientTimeout(total=TIMEOUT_S),
        allow_redirects=False,
    ) as answer:
        return answer.status, (await answer.content.read(ANSWER_BYTES)).decode("utf-8", "replace")
