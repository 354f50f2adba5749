from __future__ import annotations

import socket

import pytest

from proxy.cli import main
from proxy.commands.simulate import PROFILE, engine_profile


def test_a_taken_port_is_told_with_its_remedy(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert main(["simulate", "--port", str(port)]) == 1
    error = capsys.readouterr().err
    assert error.startswith(f"penstock: cannot listen on 127.0.0.1:{port} (")
    assert error.endswith("; give another --port\n")


def test_the_default_profile_exists() -> None:
    assert engine_profile(PROFILE).name == PROFILE


def test_more_sequences_than_a_step_has_tokens_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["simulate", "--port", "0", "--profile", PROFILE, "--max-num-seqs", "1000000"]) == 2
    assert "give a smaller --max-num-seqs" in capsys.readouterr().err
