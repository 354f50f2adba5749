from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.adapters.engines.exposition import TEXT_MAX_CHARS, Exposition

NAMES = ("m:a", "m:a_total", "old")


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ("m:a 3", [({}, 3.0)]),
        ('# TYPE m:a gauge\nm:a{e="0"} 1.0\nm:a{e="1"} 2e1\n', [({"e": "0"}, 1.0), ({"e": "1"}, 20.0)]),
        ('m:a{ x = "1" , y="a,b}c" , } 4 1700000000', [({"x": "1", "y": "a,b}c"}, 4.0)]),
        (r'm:a{x="q\"\\\n"} 1', [({"x": 'q"\\\n'}, 1.0)]),
        ("m:a{} 0 # {trace_id=\"7\"} 0.1", [({}, 0.0)]),
        ("m:a NaN\nm:a +Inf\nm:a -1\nm:a x\nm:a\nm:a{\nm:a{x=\"1} 2\nm:a 7", [({}, 7.0)]),
        ('m:a{x="1",!,y="2"} 5', [({"x": "1"}, 5.0)]),
        ("m:abc 1\nxm:a 2\nm:a_total 3\r\n", []),
        ("<html>m:a 5</html>\n\x00\nm:a\t6\r\n", [({}, 6.0)]),
        ("", []),
    ],
)  # fmt: skip
def test_reads_what_is_asked_and_skips_the_rest(text: str, rows: object) -> None:
    assert Exposition(text, NAMES).rows("m:a") == rows


def test_sums_ranks_and_takes_the_first_name_that_occurs() -> None:
    text = 'm:a{r="0",t="0"} 4\nm:a{r="0",t="1"} 5\nm:a{r="1"} 2\nm:a{t="3"} 1\nold 9\n'
    metrics = Exposition(text, NAMES)
    assert metrics.total("m:a") == 12
    assert metrics.total("m:a", per="r") == 5 + 2 + 1
    assert metrics.highest("m:a") == 5
    assert metrics.total("m:a_total", "old") == 9
    assert metrics.total("m:a_total") is metrics.total("m:a_total", per="r") is metrics.highest("m:a_total") is None
    assert repr(metrics) == "Exposition(m:a: 4, old: 1)"


def test_reads_no_further_than_the_bound() -> None:
    assert Exposition("#" * TEXT_MAX_CHARS + "\nm:a 1", NAMES).rows("m:a") == []


@settings(max_examples=150)
@given(st.text(alphabet='m:a{}x="\\,1e \n\t#.-_', max_size=60), st.floats(min_value=0, allow_infinity=False))
def test_junk_around_a_sample_neither_raises_nor_hides_it(junk: str, value: float) -> None:
    assert Exposition(f"{junk}\nm:a {value}", NAMES).rows("m:a")[-1] == ({}, value)


@pytest.mark.parametrize("text", ['m:a{x="' + '\\"' * 400_000, "m:a{" + "x" * 400_000 + "} 1", 'm:a{x="1"' * 80_000])
def test_malformed_megabytes_take_linear_time(text: str) -> None:
    """Quadratic time would not end within the life of a test run."""
    Exposition(text, NAMES)
