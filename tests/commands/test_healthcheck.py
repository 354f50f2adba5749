from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from proxy.cli import main


class Admin(BaseHTTPRequestHandler):
    status = 200

    def do_GET(self) -> None:
        self.send_response(self.status if self.path == "/ready" else 404)
        self.end_headers()

    def log_message(self, *arguments: object) -> None:
        """Silent."""


@pytest.fixture
def port() -> Iterator[int]:
    with HTTPServer(("127.0.0.1", 0), Admin) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(("status", "code", "message"), [(200, 0, ""), (503, 1, "is not ready (status 503)")])
def test_the_code_follows_readiness(
    port: int, status: int, code: int, message: str,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setattr(Admin, "status", status)
    monkeypatch.setenv("PENSTOCK_ADMIN__PORT", str(port))
    assert main(["healthcheck", "--admin-host", "0.0.0.0"]) == code
    assert message in capsys.readouterr().err


def test_a_silent_port_is_told_with_its_address(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as taken:  # bound but not listening: refuses
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        assert main(["healthcheck", "--admin-port", str(port)]) == 1
    assert f"no answer from 127.0.0.1:{port} (" in capsys.readouterr().err
