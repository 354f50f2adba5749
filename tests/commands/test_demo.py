from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from tests.children import IMPORTS


def test_the_demo_serves_a_load_shows_it_and_ends_by_itself(tmp_path: Path) -> None:
    line = "demo --duration 3 --rate 20 --speed 20"
    command = [sys.executable, "-P", "-m", "proxy", *line.split()]
    environ = {"PYTHONPATH": IMPORTS, "PENSTOCK_UPSTREAMS__0__URL": "http://not.asked:1"}
    done = subprocess.run(command, cwd=tmp_path, env=environ, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    first, *rows, last = done.stdout.splitlines()
    assert re.fullmatch(r"proxy on a SIMULATED engine \(t4-7b-awq\) at http://\S+, status page http://\S+", first)
    assert last == "3 s are over"
    served = [int(count) for count in re.findall(r"done (\d+), refused 0", "\n".join(rows))]
    assert len(served) == len(rows) >= 3
    assert served == sorted(served)
    assert served[-1] > 0
