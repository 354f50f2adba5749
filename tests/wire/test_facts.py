"""Cutting a priority out of a body, whatever the pieces."""

from __future__ import annotations

import json

from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.wire.facts import KEYS, PrioritySpan, strip_priority
from proxy.wire.openai import read_body
from proxy.wire.routes import ROUTES
from tests.wire.documents import DOCUMENTS, split

ROUTE = ROUTES[b"/v1/embeddings"]
CHECKED = KEYS - {"service_tier"}
CUTS = st.lists(st.integers(0, 9999), max_size=4)


@settings(max_examples=150, deadline=None)
@given(DOCUMENTS, st.integers(-99, 99), st.integers(0, 9), st.booleans(), CUTS, st.none() | st.integers(-9, 9))
def test_a_cut_leaves_the_rest_equal(
    document: dict[str, object], priority: int, place: int, spaced: bool, cuts: list[int], replacement: int | None
) -> None:
    items = [(key, value) for key, value in document.items() if key not in CHECKED]
    items.insert(place % (len(items) + 1), ("priority", priority))
    body = json.dumps(dict(items), separators=(" , ", " : ") if spaced else (",", ":")).encode()
    facts = read_body(body, ROUTE)
    assert facts.priority == priority and facts.priority_span is not None
    stripped = json.loads(b"".join(strip_priority(split(body, cuts), facts.priority_span, replacement)))
    expected = dict(items)
    if replacement is None:
        del expected["priority"]
    else:
        expected["priority"] = replacement
    assert stripped == expected and list(stripped) == list(expected)


def test_untouched_pieces_are_the_same_objects() -> None:
    pieces = [b'{"a":1,', b'"priority":2,', b'"b":3}']
    kept = strip_priority(pieces, PrioritySpan(7, 20, 18, 19))
    assert kept[0] is pieces[0] and kept[1] is pieces[2] and len(kept) == 2
