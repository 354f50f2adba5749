"""`python -m tests.e2e.planted serve ...`: the command with faults planted into the product, none of them a hook of it.

A request whose id begins with the name of a place meets an exception there. A service fails for as long as a file of
its name lies in the working folder.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from proxy.adapters.forward import Exchange
from proxy.adapters.gate import Gate
from proxy.adapters.metrics import Metrics
from proxy.adapters.prober import UpstreamProbe
from proxy.cli import main
from proxy.dispatcher import Dispatcher
from proxy.server.connection import ClientConnection
from proxy.server.intake import Intake
from proxy.server.public import Listener


class Planted(Exception):  # noqa: N818 - what it is called in logs
    """A fault that nobody expects."""


def plant(owner: type, method: str, meets: Callable[..., bool]) -> None:
    whole = getattr(owner, method)

    def planted(*arguments: Any, **named: Any) -> Any:
        if meets(*arguments):
            raise Planted(method)
        return whole(*arguments, **named)

    setattr(owner, method, planted)


def of_exchange(place: str) -> Callable[..., bool]:
    return lambda exchange, *_: str(exchange.inbound.request_id).startswith(place)


def names_upload(connection: ClientConnection) -> bool:
    inbound = connection.parsing
    assert inbound is not None
    return any(value.startswith(b"upload") for name, value in inbound.headers if name.lower() == b"x-request-id")


def plant_all() -> None:
    for method, place in (
        ("granted", "grant"), ("connected", "send"), ("answer_head", "head"), ("answer_head", "twice"),
        ("answer_whole", "head"), ("answer_whole", "twice"), ("answer_whole", "body"), ("expel", "twice"),
        ("answer_end", "end"), ("lost", "lost"), ("client_left", "leaving"), ("sweep", "sweep"),
    ):  # fmt: skip
        plant(Exchange, method, of_exchange(place))
    plant(Exchange, "answer_body", lambda exchange, *_: of_exchange("body")(exchange) and not exchange.begun)
    plant(Exchange, "answer_body", lambda exchange, *_: of_exchange("middle")(exchange) and exchange.begun)
    plant(Intake, "_ticket", lambda _, inbound, *__: inbound.request_id.startswith("intake"))
    plant(Dispatcher, "arrived", lambda _, ticket, *__: of_exchange("arrival")(ticket.client))
    plant(Metrics, "request_ended", lambda _, record: record.request_id.startswith("record"))
    plant(ClientConnection, "on_message_complete", names_upload)
    for owner, method in ((Gate, "tick"), (Listener, "sweep"), (UpstreamProbe, "turn")):
        plant(owner, method, lambda *_, name=f"{owner.__name__}.{method}": Path(name).exists())


if __name__ == "__main__":
    plant_all()
    sys.exit(main())
