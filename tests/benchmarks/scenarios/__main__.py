"""`python -m tests.benchmarks.scenarios`: runs what has changed and writes docs/control.md; `make scenarios`."""

from __future__ import annotations

import argparse
import json
import sys
import time
from math import inf, isinf
from typing import Any

from tests.benchmarks.scenarios.document import NAMES, document, goal, picture, verdict, worst
from tests.benchmarks.scenarios.seeds import lines, run_seeds
from tests.benchmarks.scenarios.sweep import ROOT, SCENARIOS, Bench, processes, progress, run_all
from tests.benchmarks.scenarios.worlds import OURS

RESULTS = ROOT / "docs" / "control" / "results.json"
PAGE = ROOT / "docs" / "control.md"


def told(results: dict[str, Any]) -> dict[str, Any]:
    """What is kept: everything but the curves, which are in the pictures."""
    return {key: {name: part for name, part in result.items() if name != "series"} for key, result in results.items()}


def written(results: dict[str, Any]) -> str:
    """The results as a file, with seven digits: enough to be told, and the same on every machine. Never is null."""
    return json.dumps(rounded(results), indent=1, sort_keys=True, allow_nan=False) + "\n"


def rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: rounded(part) for key, part in value.items()}
    if isinstance(value, float):
        return None if isinf(value) else float(f"{value:.7g}")
    return value


def restored(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: restored(part) for key, part in value.items()}
    return inf if value is None else value


def kept() -> dict[str, Any]:
    """The results that the page was made from."""
    found: dict[str, Any] = restored(json.loads(RESULTS.read_text(encoding="utf-8")))
    return found


def write(results: dict[str, Any]) -> None:
    """The page, its pictures, and the results they were made from."""
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(written(told(results)), encoding="utf-8")
    PAGE.write_text(document(list(SCENARIOS.values()), kept()), encoding="utf-8")
    for key, result in results.items():
        if result["series"]:
            (RESULTS.parent / f"{key}.svg").write_text(picture(SCENARIOS[key], result), encoding="utf-8")


def show(results: dict[str, Any]) -> None:
    """Every measure of every law, on standard output."""
    for key, result in results.items():
        one = SCENARIOS[key]
        static = {name: best["seats"] for name, best in result["static"].items()}
        print(f"{key}: {one.title}  {static}")
        for measure in one.measures:
            print(f"  {measure.words}  {goal(measure)}")
            for law, seeds in result["laws"].items():
                value = worst(measure, seeds)
                each = ", ".join(measure.text(numbers[measure.name]) for numbers in seeds.values())
                print(f"    {NAMES[law]:20} {measure.text(value):>10} {verdict(measure, value):7} {each}")


def span(text: str) -> range:
    """Seeds as FIRST-LAST."""
    first, _, last = text.partition("-")
    found = range(int(first), int(last or first) + 1)
    if not found:
        raise ValueError
    return found


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.scenarios", description=__doc__)
    parser.add_argument("--only", help="letters of scenarios, with commas: run and print these, write nothing")
    parser.add_argument("--law", help="names of laws, with commas, instead of all (with --only)")
    parser.add_argument("--seeds", type=span, help="seeds, as 1-12, of our law alone, beside the page's static limits")
    parser.add_argument("--fresh", action="store_true", help="forget the results of earlier runs")
    parser.add_argument(
        "--page", action="store_true", help="write the page from docs/control/results.json, run nothing"
    )
    arguments = parser.parse_args()
    if arguments.page:
        PAGE.write_text(document(list(SCENARIOS.values()), kept()), encoding="utf-8")
        return 0
    only = arguments.only.split(",") if arguments.only else []
    unknown = [key for key in only if key not in SCENARIOS]
    if unknown:
        sys.stderr.write(f"no scenario {', '.join(unknown)}; there are {', '.join(SCENARIOS)}\n")
        return 2
    begin_s = time.monotonic()
    bench = Bench(processes(), progress, arguments.fresh)
    chosen = [SCENARIOS[key] for key in only or SCENARIOS]
    if arguments.seeds:
        known = {key: {name: best["seats"] for name, best in one["static"].items()} for key, one in kept().items()}
        rows = run_seeds(bench, chosen, known, arguments.seeds)
        print("\n".join(line for one in chosen for line in lines(one, rows[one.key])))
        return 0
    laws = [*arguments.law.split(","), OURS] if arguments.law else None
    results = run_all(bench, chosen, laws)
    if only:
        show(results)
    else:
        write(results)
    pace = bench.simulated_s / bench.cpu_s if bench.cpu_s else 0.0
    sys.stderr.write(
        f"{bench.runs} runs, {bench.simulated_s:.0f} simulated s in {bench.cpu_s:.0f} CPU s ({pace:.0f} per second), "
        f"{time.monotonic() - begin_s:.0f} s in all\n"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
