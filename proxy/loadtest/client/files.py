"""Files of load tests: workloads and recorded arrivals to read, results to read and write."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path

import orjson

from proxy.adapters.data import data_folder
from proxy.loadtest.reading import Section, WorkloadError, read_trace, read_workload
from proxy.loadtest.records import Record
from proxy.loadtest.results import Document, ResultsError, check_results
from proxy.loadtest.workload import TraceEntry, Workload
from proxy.settings.trees import ConfigError
from proxy.settings.yaml_file import read_yaml

TRACE_BYTES_MAX = 256 << 20
RESULTS_BYTES_MAX = 256 << 20


def bundled() -> dict[str, Path]:
    """Workloads that come with the program, by name."""
    return {path.stem: path for path in sorted((data_folder("config") / "workloads").glob("*.yaml"))}


def load_workload(name: str) -> Workload:
    """A bundled name, a YAML file, or a JSONL file of recorded arrivals. Raises WorkloadError."""
    path = bundled().get(name, Path(name))
    if path.suffix == ".jsonl":
        return read_workload({"arrival": {"process": "trace"}}, path.stem, _trace(path, 1.0))
    if not path.is_file():
        raise WorkloadError(f"no workload {name!r}; give a file or one of: {', '.join(bundled())}")
    try:
        tree = read_yaml(path, "the workload").tree
    except ConfigError as error:
        raise WorkloadError("; ".join(error.lines)) from None
    try:
        return read_workload(tree, path.stem, _trace_of(tree, path))
    except WorkloadError as error:
        raise WorkloadError(f"{path.name}: {error}") from None


def _trace_of(tree: Mapping[str, object], path: Path) -> tuple[TraceEntry, ...]:
    if not tree.get("trace"):
        return ()
    section = Section(tree["trace"], "trace")
    file = section.text("file")
    speed = section.number("speed", 1.0, 0, 1e6, above=True)
    section.done()
    return _trace(path.parent / file, speed)


def _trace(path: Path, speed: float) -> tuple[TraceEntry, ...]:
    try:
        if path.stat().st_size > TRACE_BYTES_MAX:
            raise WorkloadError(f"{path.name}: larger than {TRACE_BYTES_MAX >> 20} MiB; cut it")
        with path.open(encoding="utf-8") as lines:
            return read_trace(lines, path.name, speed)
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not UTF-8"
        raise WorkloadError(f"{path}: cannot be read ({reason}); give a file of JSON lines") from None


def load_document(path: Path) -> object:
    """JSON of a file. Raises ResultsError."""
    try:
        if path.stat().st_size > RESULTS_BYTES_MAX:
            raise ResultsError(f"{path}: too large for a results file")
        found: object = orjson.loads(path.read_bytes())
    except OSError as error:
        raise ResultsError(f"{path}: cannot be read ({error.strerror}); give a results file") from None
    except orjson.JSONDecodeError:
        raise ResultsError(f"{path}: is not JSON; give a results file") from None
    return found


def load_results(path: Path) -> Document:
    """Results of one run. Raises ResultsError."""
    return check_results(load_document(path), str(path))


def save(path: Path, data: str | bytes) -> None:
    """Whole or not at all: a reader, or an interruption, never meets half a file. Raises OSError."""
    raw = data.encode() if isinstance(data, str) else data
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(raw)
        Path(name).chmod(0o644)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def save_json(path: Path, document: Mapping[str, object]) -> None:
    save(path, json.dumps(document, indent=2) + "\n")


def save_records(path: Path, records: Iterable[Record]) -> None:
    """One JSON object a line, in the order in which requests ended."""
    save(path, b"".join(orjson.dumps(record.document(), option=orjson.OPT_APPEND_NEWLINE) for record in records))
