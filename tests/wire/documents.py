"""Random request documents, as bytes in several spellings, for the tests of both body readers."""

from __future__ import annotations

import json
from itertools import pairwise

from hypothesis import strategies as st

from proxy.wire.facts import KEYS as READ

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8) | st.sampled_from(
    ["data", "data:", "input_audio", "data:audio/x", '"model":', "\\", "{[", "a" * 600, "\\u006d", "]}"]
)
SCALAR = (
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False) | TEXT
)
NESTED = st.recursive(
    SCALAR,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT | st.just("data"), inner, max_size=3),
    max_leaves=8,
)
KEYS = st.sampled_from(sorted(READ | {"data", "messages", "input"}))
PLAUSIBLE = st.sampled_from(
    [1, 2, 130, True, False, "m", "flex", ["a", "b"], [1, 2], [[1], [2], [3]], [], {}, "x" * 300]
)
DOCUMENTS = st.dictionaries(KEYS | TEXT, PLAUSIBLE | NESTED, max_size=7)
FILLER = {"filler": "y" * 4096}  # lifts a document over the size from which media is looked for


@st.composite
def bodies(draw: st.DrawFn) -> bytes:
    """One document: compact or spaced, raw or ASCII."""
    document = draw(DOCUMENTS)
    if draw(st.booleans()):
        document |= FILLER
    compact = draw(st.booleans())
    separators = (",", ":") if compact else (" ,\t", "\n: ")
    return json.dumps(document, ensure_ascii=draw(st.booleans()), separators=separators).encode()


def split(body: bytes, cuts: list[int]) -> list[bytes]:
    """The body in pieces, cut at the given offsets (taken modulo its length)."""
    edges = sorted({0, len(body), *(cut % (len(body) + 1) for cut in cuts)})
    return [body[start:end] for start, end in pairwise(edges)]
