"""What survives a restart is plain data: numbers that a JSON file can hold and give back."""

from __future__ import annotations

import json
from dataclasses import asdict

import pytest

from proxy.admission.sizer_state import SizerMemory
from proxy.admission.step_model import Coefficients


@pytest.mark.parametrize("coefficients", [None, Coefficients(0.0136, 0.0001, 0.00004, 1.25)])
def test_memory_survives_json(coefficients: Coefficients | None) -> None:
    memory = SizerMemory(limit=103.5, margin=0.94, coefficients=coefficients)
    read = json.loads(json.dumps(asdict(memory)))
    fit = read["coefficients"]
    again = SizerMemory(read["limit"], read["margin"], None if fit is None else Coefficients(**fit))
    assert again == memory
