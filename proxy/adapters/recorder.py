"""Appends arrivals to a JSONL file that `penstock replay` reads: one line per request that was admitted or refused.

`{"t_s", "tenant", "class", "prompt_tokens", "output_tokens"}`, t_s since the recorder was opened. Lines are written
when requests end, so they are not in the order of arrival; readers sort.
"""

from __future__ import annotations

from pathlib import Path

import orjson

from proxy.adapters.records import RequestRecord


class Recorder:
    """Buffered; `flush` belongs on a slow timer. Writing stops at the first error, which `failed` tells."""

    def __init__(self, path: Path, started_s: float) -> None:
        """OSError when the file cannot be appended to."""
        self._file = path.open("ab")
        self._started_s = started_s
        self.failed: OSError | None = None

    def record(self, record: RequestRecord, ended_s: float) -> None:
        if self.failed is not None or not record.class_name:
            return
        line = orjson.dumps(
            {
                "t_s": round(ended_s - record.duration_s - self._started_s, 6),
                "tenant": record.tenant,
                "class": record.class_name,
                "prompt_tokens": record.prompt_tokens,
                "output_tokens": record.output_tokens,
            },
            option=orjson.OPT_APPEND_NEWLINE,
        )
        self._attempt(lambda: self._file.write(line))

    def flush(self) -> None:
        if self.failed is None:
            self._attempt(self._file.flush)

    def close(self) -> None:
        self._attempt(self._file.close)

    def _attempt(self, write: object) -> None:
        try:
            assert callable(write)
            write()
        except OSError as error:
            self.failed = error
