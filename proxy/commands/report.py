"""`report`: one run as a document, or two compared: what changed, by how much, and why."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

from proxy.commands.base import WRONG_USE, CommandError, Commands, add_command, say, say_json
from proxy.commands.load_options import write

EXAMPLE = (
    "penstock report batch1.json batch8.json\n"
    "penstock report before.json after.json --out report.md --out report.html\n"
    "penstock report run.json --out run.html"
)
FORMATS = (".md", ".html")


def declare(commands: Commands) -> None:
    parser = add_command(commands, "report", run, "compare two results of loadtest, or show one", EXAMPLE)
    parser.add_argument("files", metavar="FILE", type=Path, nargs="*", help="results of penstock loadtest --out")
    parser.add_argument("--out", type=Path, action="append", default=[], metavar="FILE", help="save as .md or .html")
    parser.add_argument("--title", default="", help="title of the document")
    parser.add_argument("--json", action="store_true", help="print the changes as JSON")
    parser.add_argument("--schema", action="store_true", help="print the JSON Schema of results files")


def run(arguments: Namespace) -> int:
    from proxy.loadtest import ResultsError, load_results
    from proxy.loadtest.blocks import as_markdown, as_page, as_text
    from proxy.loadtest.client.files import save
    from proxy.loadtest.compare import analysis, caveats, changes, comparison, name_of, single
    from proxy.loadtest.results import json_schema

    if arguments.schema:
        say_json(json_schema())
        return 0
    if len(arguments.files) not in (1, 2):
        raise CommandError("give one or two results files; see: penstock report --help", code=WRONG_USE)
    for path in arguments.out:
        if path.suffix not in FORMATS:
            raise CommandError(f"--out {path}: the name must end in .md or .html", code=WRONG_USE)
    try:
        documents = [load_results(path) for path in arguments.files]
    except ResultsError as error:
        raise CommandError(str(error)) from None
    names = [name_of(one, path.stem) for one, path in zip(documents, arguments.files, strict=True)]
    if len(documents) == 1:
        title, blocks = arguments.title or f"Load test {names[0]}", single(documents[0])
        changed: dict[str, object] = documents[0]["total"]
    else:
        before, after = documents
        pair = (names[0], names[1]) if names[0] != names[1] else (f"{names[0]} (1)", f"{names[1]} (2)")
        title, blocks = arguments.title or f"{pair[0]} against {pair[1]}", comparison(before, after, pair)
        rows = changes(before, after)
        changed = {
            "changes": [{"name": r.name, "before": r.before, "after": r.after, "ratio": r.ratio} for r in rows],
            "analysis": analysis(before, after, pair),
            "warnings": caveats(before, after),
        }
    for path in arguments.out:
        write(path, save, (as_page if path.suffix == ".html" else as_markdown)(title, blocks))
    if arguments.json:
        say_json(changed)
    else:
        say(as_text(title, blocks))
    return 0
