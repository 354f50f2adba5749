from __future__ import annotations

import asyncio
from argparse import Namespace

import pytest

from proxy.commands.base import CommandError
from proxy.commands.demo_watch import watch


def test_a_proxy_that_has_ended_ends_the_demo() -> None:
    arguments = Namespace(duration=5.0, rate=1.0, seed=1)
    with pytest.raises(CommandError, match="the proxy has ended"):
        asyncio.run(watch(arguments, "http://127.0.0.1:1", "http://127.0.0.1:1"))


def test_a_time_that_is_over_is_not_looked_into(capsys: pytest.CaptureFixture[str]) -> None:
    asyncio.run(watch(Namespace(duration=0.0, rate=1.0, seed=1), "http://127.0.0.1:1", "http://127.0.0.1:1"))
    assert capsys.readouterr().out == "0 s are over\n"
