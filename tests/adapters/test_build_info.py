"""What is told of the build is what runs."""

from __future__ import annotations

import proxy.dispatcher.core
from proxy import __version__
from proxy.adapters.build_info import COMPILED, NAME


def test_compiled_is_told_of_exactly_those_builds_whose_dispatcher_is_no_python_file() -> None:
    compiled = not proxy.dispatcher.core.__file__.endswith(".py")
    assert compiled is COMPILED
    assert f"penstock {__version__}{' (compiled)' if compiled else ''}" == NAME
