from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from proxy.settings import ConfigError, load

Write = Callable[..., Path]
UPSTREAM = "upstreams: [{url: 'http://e:1', %s}]"


def told(path: Path | None, environ: dict[str, str] | None = None, **overrides: Any) -> list[str]:
    """The lines of the ConfigError that loading raises."""
    with pytest.raises(ConfigError) as caught:
        load(path, overrides, environ or {})
    return caught.value.lines
