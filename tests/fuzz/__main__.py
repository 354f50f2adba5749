"""Coverage-guided fuzzing: `python -m tests.fuzz TARGET SECONDS` in an environment that has atheris; see `make fuzz`.

What breaks a property is kept as a file in the folder of that target, and can be played again by naming the file.
"""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path

FOLDER = Path("build/fuzz")


def main(name: str, seconds: str) -> None:
    atheris = import_module("atheris")
    with atheris.instrument_imports(include=["proxy"]):
        from tests.fuzz.targets import TARGETS
        from tests.fuzz.words import SEEDS, WORDS
    corpus, found = FOLDER / name, FOLDER / f"{name}-found"
    for folder in (corpus, found):
        folder.mkdir(parents=True, exist_ok=True)
    cuts = b"" if name in ("head", "configuration", "telemetry") else bytes(9)
    for number, seed in enumerate(SEEDS[name]):
        (corpus / f"seed-{number}").write_bytes(cuts + seed)
    dictionary = FOLDER / f"{name}.words"
    quoted = ("".join(f"\\x{byte:02x}" for byte in word) for word in WORDS[name] if word)
    dictionary.write_text("".join(f'"{text}"\n' for text in quoted))
    if Path(seconds).exists():
        TARGETS[name](Path(seconds).read_bytes())
        return
    options = ["-max_len=4096", f"-dict={dictionary}", f"-artifact_prefix={found}/", f"-max_total_time={seconds}"]
    atheris.Setup([sys.argv[0], *options, str(corpus)], TARGETS[name])
    atheris.Fuzz()


if __name__ == "__main__":
    main(*sys.argv[1:])
