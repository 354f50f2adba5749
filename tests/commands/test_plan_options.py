"""The two readers of numbers."""

from __future__ import annotations

from argparse import ArgumentTypeError
from collections.abc import Callable

import pytest

from proxy.commands.plan_options import number, whole


def test_numbers_in_range() -> None:
    assert (whole()("7"), whole(0, 3)("0"), number(0, 1)("0.5"), number(1, 2)("2")) == (7, 0, 0.5, 2.0)


@pytest.mark.parametrize(
    ("read", "text"),
    [
        (whole(), "0"), (whole(high=9), "10"), (whole(), "-1"), (whole(), "1e3"), (whole(), "٣"), (whole(), "9" * 12),
        (number(0, 1), "1.1"), (number(0, 1), "nan"), (number(0, 1), "inf"), (number(0, 1), ""),
    ],
)  # fmt: skip
def test_refusals(read: Callable[[str], float], text: str) -> None:
    with pytest.raises(ArgumentTypeError, match="is no"):
        read(text)
