"""Other people's judges, in an environment of their own: `make suites`.

schemathesis asks what docs/openapi.yaml allows and what it does not; httplint reads the heads of our own answers.
Both against the real process before a simulated engine.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

from tests.e2e.engines import SimulatedEngine
from tests.e2e.harness import ProxyProcess, running
from tests.e2e.raw_client import RawClient, bare, chat, post

ROOT = Path(__file__).parent.parent.parent
HERE = Path(__file__).parent
POOR = {"warning", "bad"}
ABOUT_THE_STATUS = "The server didn't understand the request."  # said of every 400
ASKED = {
    "health": bare("GET /health HTTP/1.1"),
    "models": bare("GET /v1/models HTTP/1.1"),
    "no such path": bare("GET /none HTTP/1.1"),
    "wrong method": bare("GET /v1/chat/completions HTTP/1.1"),
    "not JSON": post(b"{"),
    "unknown model": post(chat("none")),
    "messages refused": post({}, "/v1/messages"),
}


def schemathesis(proxy: ProxyProcess) -> int:
    command = [
        str(Path(sys.executable).with_name("schemathesis")), "--config-file", str(HERE / "schemathesis.toml"), "run",
        str(ROOT / "docs/openapi.yaml"), "--url", f"http://127.0.0.1:{proxy.port}", "--exclude-tag", "admin",
    ]  # fmt: skip
    return subprocess.run(command, check=False, cwd=tempfile.gettempdir()).returncode


def heads(proxy: ProxyProcess) -> Iterator[tuple[str, bytes, bytes, list[tuple[bytes, bytes]], bytes]]:
    """Name, status, reason, fields and body of each answer."""
    for name, request in ASKED.items():
        with RawClient(proxy.port) as client:
            client.send(request).read_until(b"\r\n\r\n")
            head = client.rest.partition(b"\r\n\r\n")[0]
            body = client.answer().body
        first, *lines = head.split(b"\r\n")
        _, status, reason = first.split(b" ", 2)
        fields = [(key, value) for key, _, value in (line.partition(b": ") for line in lines)]
        yield name, status, reason, fields, body


def httplint(proxy: ProxyProcess) -> int:
    module = import_module("httplint")
    bad = 0
    for name, status, reason, fields, body in heads(proxy):
        linter = module.HttpResponseLinter()
        linter.process_response_topline(b"HTTP/1.1", status, reason)
        linter.process_headers(fields)
        linter.feed_content(body)
        linter.finish_content(True)
        notes = [(note.level.value, note.summary) for note in linter.notes]
        poor = [f"{level}: {text}" for level, text in notes if level in POOR and str(text) != ABOUT_THE_STATUS]
        bad += len(poor)
        print(f"{name}: {status.decode()}, {len(notes)} notes", *poor, sep="\n    ")
    return bad


def main() -> int:
    with tempfile.TemporaryDirectory() as folder, SimulatedEngine(speed=50) as engine:
        config = {"upstreams": [{"name": "simulated", "url": engine.url}]}
        with running(Path(folder), config) as proxy:
            failed = bool(httplint(proxy))
            failed |= bool(schemathesis(proxy))
    return int(failed)


if __name__ == "__main__":
    raise SystemExit(main())
