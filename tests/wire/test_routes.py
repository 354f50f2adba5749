"""The allow-list: exact bytes or nothing."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.types import Work
from proxy.wire.errors import BadRequest
from proxy.wire.routes import MODEL_ROUTE, ROUTES, find_route, split_target


@pytest.mark.parametrize(
    ("path", "work", "allow"),
    [
        (b"/v1/chat/completions", Work.GENERATE, b"POST"),
        (b"/v1/messages", Work.GENERATE, b"POST"),
        (b"/rerank", Work.EMBED, b"POST"),
        (b"/v1/audio/transcriptions", Work.AUDIO, b"POST"),
        (b"/tokenize", Work.LIGHT, b"POST"),
        (b"/v1/models", Work.LIGHT, b"GET, HEAD"),
    ],
)
def test_known_paths(path: bytes, work: Work, allow: bytes) -> None:
    route = find_route(path)
    assert route is not None and route.work is work and route.allow == allow


def test_a_model_may_be_named_in_the_path() -> None:
    assert find_route(b"/v1/models/org/name") is MODEL_ROUTE
    assert find_route(b"/v1/models/") is None


@pytest.mark.parametrize(
    "path",
    [
        b"/v1/chat/completions/", b"//v1/chat/completions", b"/v1/../v1/chat/completions", b"/v1/chat%2Fcompletions",
        b"/V1/chat/completions", b"/v1/chat/completions;x", b"/metrics", b"/sleep", b"/load_lora_adapter", b"/", b"",
    ],
)  # fmt: skip
def test_anything_else_does_not_exist(path: bytes) -> None:
    assert find_route(path) is None


@pytest.mark.parametrize(
    ("target", "parts"),
    [
        (b"/v1/models", (b"/v1/models", b"")),
        (b"/a?b=c?d", (b"/a", b"?b=c?d")),
        (b"/a", (b"/a", b"")),
        (b"/a?", (b"/a", b"?")),
        (b"//a", (b"//a", b"")),
    ],
)
def test_a_target_splits_at_its_first_question_mark(target: bytes, parts: tuple[bytes, bytes]) -> None:
    assert split_target(target) == parts


@pytest.mark.parametrize(
    "target", [b"http://h/v1/models", b"*", b"", b"/a b", b"/a\xff", b"/a#b", b"/a?\r\nx", b"h:80"]
)
def test_other_targets_are_refused(target: bytes) -> None:
    with pytest.raises(BadRequest) as refused:
        split_target(target)
    assert refused.value.status == 400


@given(st.binary(max_size=40))
def test_no_bytes_reach_a_route_but_its_own(path: bytes) -> None:
    route = find_route(path)
    assert route is None or path in ROUTES or path.startswith(b"/v1/models/")
