"""Every target on bytes that look like its input, a few hundred of each; `make fuzz` goes on for longer."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fuzz.targets import TARGETS
from tests.fuzz.words import SEEDS, WORDS
from tests.wire.documents import bodies

CUTS = st.binary(min_size=9, max_size=9).map(lambda raw: bytes([4]) + raw[1:])
EXAMPLES = {"configuration": 60, "request": 150, "answer": 150}


def like(name: str) -> st.SearchStrategy[bytes]:
    """Words of the format in any order, with anything between; or a seed with a few bytes changed."""
    words = st.lists(st.sampled_from(WORDS[name]) | st.binary(max_size=3), max_size=16).map(b"".join)
    changed = st.tuples(st.sampled_from(SEEDS[name]), st.integers(0, 9999), st.binary(max_size=3)).map(_changed)
    found = words | changed | st.sampled_from(SEEDS[name])
    return found | bodies() if name == "body" else found


def _changed(parts: tuple[bytes, int, bytes]) -> bytes:
    seed, place, junk = parts
    place %= len(seed)
    return seed[:place] + junk + seed[place + 1 :]


@pytest.mark.parametrize("name", TARGETS)
def test_target(name: str) -> None:
    plain = name in ("head", "configuration", "telemetry")
    cuts = st.just(b"") if plain else CUTS

    @settings(
        max_examples=EXAMPLES.get(name, 300), deadline=None, suppress_health_check=list(HealthCheck), database=None
    )
    @given(cuts, like(name))
    def holds(marks: bytes, data: bytes) -> None:
        TARGETS[name](marks + data)

    holds()


def test_each_target_has_words_and_seeds() -> None:
    assert TARGETS.keys() == WORDS.keys() == SEEDS.keys()
    assert all(SEEDS.values())
    assert Path(__file__).with_name("__main__.py").exists()
