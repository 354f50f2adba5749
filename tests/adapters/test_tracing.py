from __future__ import annotations

import subprocess
import sys

import pytest

from proxy.adapters.spans import SpanMaker
from proxy.adapters.tracing import open_tracer


def test_the_extra_gives_a_tracer() -> None:
    tracer = open_tracer(lambda name: "")
    assert isinstance(tracer, SpanMaker)
    tracer.close()


def test_without_the_extra_the_remedy_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace.export", None)
    with pytest.raises(ValueError, match=r"pip install 'penstock\[otel\]'"):
        open_tracer(lambda name: "")


def test_nothing_of_it_is_imported_by_a_proxy_without_tracing() -> None:
    code = "import proxy.server.app, sys; print([name for name in sys.modules if 'opentelemetry' in name])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
