from __future__ import annotations

import base64
import math
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.simulator.server import passes
from proxy.simulator.server.bodies import RefusedError, read_passes
from tests.simulator.serving import PROFILE

ASKED = read_passes({}, ["a", "b"], PROFILE)


def test_vectors_have_length_one_in_either_encoding() -> None:
    plain = passes.embeddings({"dimensions": 9}, ASKED, "m")
    vector = plain["data"][1]["embedding"]
    assert len(vector) == 9 and math.isclose(math.hypot(*vector), 1.0)
    packed = passes.embeddings({"encoding_format": "base64"}, ASKED, "m")["data"][0]["embedding"]
    assert struct.unpack("<64f", base64.b64decode(packed)) == (0.125,) * 64


@pytest.mark.parametrize(("body", "kept"), [({}, 3), ({"top_n": 2}, 2), ({"top_n": 9}, 3)])
def test_rerank_keeps_the_best(body: dict[str, int], kept: int) -> None:
    results = passes.rerank(["a", {"text": "b"}, "c"], dict(body), ASKED, "m")["results"]
    assert [result["document"]["text"] for result in results] == ["a", "b", "c"][:kept]
    assert [result["relevance_score"] for result in results] == [1, 1 / 2, 1 / 3][:kept]


def test_score_pairs_one_with_many_or_each_with_its_own() -> None:
    assert passes.score_pairs(["q"], ["a", "b"]) == [["q", "a"], ["q", "b"]]
    assert passes.score_pairs(["p", "q"], ["a", "b"]) == [["p", "a"], ["q", "b"]]
    with pytest.raises(RefusedError, match="text_1 must be one text"):
        passes.score_pairs(["p", "q"], ["a", "b", "c"])


@given(st.text())
def test_token_ids_give_the_text_back(text: str) -> None:
    assert passes.decode(list(passes.encode(text))) == text.encode("utf-8", "replace").decode()


@pytest.mark.parametrize("token", [0, 255, 1 << 33, "a"])
def test_foreign_token_ids_are_refused(token: object) -> None:
    with pytest.raises(RefusedError, match="tokens must be ids"):
        passes.decode([token])
