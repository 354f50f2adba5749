"""Measure any OpenAI-compatible endpoint, from a script or a notebook; `docs/loadtest.md` shows how.

`await measure(url, load_workload("chat_medium"))` gives `Results`; `run(...)` does the waiting where no loop runs.
"""

from __future__ import annotations

from proxy.loadtest.client.endpoint import Endpoint, EndpointError, read_endpoint
from proxy.loadtest.client.files import bundled, load_results, load_workload, save_json, save_records
from proxy.loadtest.client.measure import Options, measure, run
from proxy.loadtest.client.watch import Sources
from proxy.loadtest.reading import WorkloadError, read_workload
from proxy.loadtest.records import Ending, Record
from proxy.loadtest.results import Results, ResultsError
from proxy.loadtest.slo import Slo, read_slo
from proxy.loadtest.workload import Arrival, Flow, Lengths, Workload

__all__ = [
    "Arrival", "Ending", "Endpoint", "EndpointError", "Flow", "Lengths", "Options", "Record", "Results", "ResultsError",
    "Slo", "Sources", "Workload", "WorkloadError", "bundled", "load_results", "load_workload", "measure",
    "read_endpoint", "read_slo", "read_workload", "run", "save_json", "save_records",
]  # fmt: skip
