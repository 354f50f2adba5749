from __future__ import annotations

import asyncio

import pytest

from proxy.adapters.session import client_session
from proxy.loadtest.client.endpoint import read_endpoint
from proxy.loadtest.client.probe import probe
from proxy.loadtest.workload import Flow, Workload
from tests.loadtest.support import RESET, Scripted, good, scripted, whole


def refusing(name: str, status: int = 400) -> tuple[bytes, ...]:
    return (whole({"error": {"message": f"Unrecognized request argument: {name}"}}, status),)


def probed(*answers: tuple[bytes, ...]) -> tuple[frozenset[str], list[str], Scripted]:
    async def scenario() -> tuple[frozenset[str], list[str], Scripted]:
        async with scripted(good(1), first=list(answers)) as endpoint, client_session() as session:
            workload = Workload("w", (Flow("f"),))
            left_out, notes = await probe(session, read_endpoint(endpoint.url), workload, "m")
            return left_out, notes, endpoint

    return asyncio.run(scenario())


@pytest.mark.parametrize(
    ("answers", "left_out", "told"),
    [
        ([], set(), []),
        ([refusing("ignore_eos")], {"ignore_eos"}, ["outputs end when the model ends them"]),
        ([refusing("stream_options", 422)], {"stream_options"}, ["streams may tell no usage"]),
        (
            [refusing("max_tokens"), refusing("ignore_eos")],
            {"max_tokens", "ignore_eos"},
            ["for max_completion_tokens", "outputs end"],
        ),
        ([refusing("temperature")], set(), []),
        ([refusing("ignore_eos", 500)], set(), []),
        ([(RESET,)], set(), ["a first request before the test failed: connection"]),
        ([(b"nonsense\r\n\r\n",)], set(), ["a first request before the test failed: answer is not HTTP"]),
    ],
)
def test_fields_that_an_endpoint_refuses_are_left_out_and_told(
    answers: list[tuple[bytes, ...]], left_out: set[str], told: list[str]
) -> None:
    found, notes, endpoint = probed(*answers)
    assert found == left_out
    assert len(notes) == len(told)
    for note, words in zip(notes, told, strict=True):
        assert words in note
    last = endpoint.asked[-1].json
    assert not left_out - {"max_tokens"} & last.keys()
    assert last["max_completion_tokens" if "max_tokens" in left_out else "max_tokens"] == 1
