from __future__ import annotations

import pytest

from proxy.adapters.gate import Waiter
from proxy.adapters.relay import Sink
from proxy.adapters.upstream_pool import Carried
from proxy.native import mypyc_attr
from proxy.server.intake import Models


def test_a_mark_changes_nothing_where_nothing_is_compiled() -> None:
    class Own:
        pass

    assert mypyc_attr(allow_interpreted_subclasses=True)(Own) is Own


@pytest.mark.parametrize("base", [Carried, Waiter, Sink, Models])
def test_what_is_marked_can_be_derived_from(base: type) -> None:
    names = [name for name in dir(base) if not name.startswith("_") and callable(getattr(base, name))]
    derived = type("Derived", (base,), dict.fromkeys(names, lambda *_: "called"))
    one = derived()
    assert [getattr(one, name)() for name in names] == ["called"] * len(names) != []
