from __future__ import annotations

import hashlib
import io
import sys

import pytest

from proxy.cli import main
from proxy.settings.fields import key_hash


def test_a_key_becomes_the_line_that_the_tenants_file_takes(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("s3cret\n"))
    assert main(["keys", "hash"]) == 0
    line = capsys.readouterr().out.strip()
    assert key_hash(line) == "sha256:" + hashlib.sha256(b"s3cret").hexdigest()


@pytest.mark.parametrize("text", ["", "\n", "two words", "schlüssel", "a\nb", "x" * 4097])
def test_what_cannot_be_a_key_is_refused_unseen(
    text: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO(text))
    assert main(["keys", "hash"]) == 1
    out, error = capsys.readouterr()
    assert (out, error.count("\n")) == ("", 1)
    assert len(text) < 2 or text not in error
