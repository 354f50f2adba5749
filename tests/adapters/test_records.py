"""A record holds each of its facts under its own name."""

from __future__ import annotations

from dataclasses import fields

import pytest

from proxy.adapters.records import RequestRecord
from proxy.types import Outcome


@pytest.mark.source  # a compiled constructor takes only values of its types
def test_what_is_given_by_position_stands_in_the_field_of_that_place() -> None:
    names = [one.name for one in fields(RequestRecord)]
    numbers = range(1, len(names) + 1)
    record = RequestRecord(*numbers)  # any values, as long as they differ
    assert [getattr(record, name) for name in names] == list(numbers)


def test_what_is_not_given_is_empty() -> None:
    record = RequestRecord("r", "/v1/models", Outcome.SUCCESS, 200, 1.0)
    assert not any(getattr(record, one.name) for one in fields(RequestRecord)[5:])
