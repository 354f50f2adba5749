"""What the documents name exists: files, commands, options, routes, codes, metrics; and their configurations load."""

from __future__ import annotations

import re
from argparse import _SubParsersAction
from pathlib import Path

import pytest
import yaml

from proxy.adapters.metrics import FAMILIES
from proxy.cli import COMMANDS, parser
from proxy.server.errors import BY_CODE, BY_OUTCOME
from proxy.settings import Settings, load

ROOT = Path(__file__).parents[1]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")])
TEXTS = {path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8") for path in DOCUMENTS}
README = TEXTS["README.md"]


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def anchors(text: str) -> set[str]:
    """Of headings, as GitHub makes them."""
    titles = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-") for title in titles}


@pytest.mark.parametrize("name", TEXTS)
def test_links_lead_somewhere(name: str) -> None:
    broken = []
    for target in re.findall(r"\]\((?!https?://|mailto:)([^)]+)\)", TEXTS[name]):
        path, _, anchor = target.partition("#")
        file = (ROOT / name).parent / path if path else ROOT / name
        missing = not file.exists()
        if missing or (anchor and anchor not in anchors(file.read_text(encoding="utf-8"))):
            broken.append(target)
    assert not broken


@pytest.mark.parametrize("name", TEXTS)
def test_paths_exist(name: str) -> None:
    found = re.findall(r"`((?:proxy|config|tests|docs|grafana)/[\w./-]*\w)`", TEXTS[name])
    assert not [path for path in found if not (ROOT / path).exists()]


def options() -> dict[str, set[str]]:
    """The long options of each command, those of its parts included."""
    found: dict[str, set[str]] = {}
    (choices,) = [one.choices for one in parser()._actions if isinstance(one, _SubParsersAction)]
    for name, command in choices.items():
        parts = [
            part for one in command._actions if isinstance(one, _SubParsersAction) for part in one.choices.values()
        ]
        found[name] = {word for one in (command, *parts) for action in one._actions for word in action.option_strings}
    return found


@pytest.mark.parametrize("name", TEXTS)
def test_commands_and_their_options_exist(name: str) -> None:
    known, wrong = options(), []
    code = "\n".join([*blocks(TEXTS[name], "sh"), *re.findall(r"`([^`\n]+)`", TEXTS[name])])
    for line in re.findall(r"\bpenstock +([a-z].*)", code):
        words = re.split(r"[|;&#]", line)[0].split()
        if words[0] not in known:
            wrong.append(line)
        else:
            wrong += [f"{words[0]} {word}" for word in words if re.match(r"--[a-z]", word)
                      and word.partition("=")[0] not in known[words[0]]]  # fmt: skip
    assert not wrong
    assert len(known) == len({command.__name__ for command in COMMANDS}) + 1  # check-config and config share a file


@pytest.mark.parametrize("name", TEXTS)
def test_make_targets_exist(name: str) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    assert set(re.findall(r"`make ([a-z-]+)", TEXTS[name])) <= targets


@pytest.mark.parametrize("name", TEXTS)
def test_metrics_exist(name: str) -> None:
    suffix = re.compile(r"_(total|bucket|sum|count|created|info)$")
    source = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "proxy/adapters").glob("*.py"))
    known = {suffix.sub("", family.name) for family in FAMILIES} | set(re.findall(r'"(penstock_\w+)"', source))
    used = {suffix.sub("", one) for one in re.findall(r"\bpenstock_[a-z0-9_]+\b(?!:)", TEXTS[name])}
    assert {one for one in used if one not in known and one.removeprefix("penstock_") not in source} == set()


def test_each_refusal_in_the_readme_is_in_the_table() -> None:
    rows = {(str(row.status), row.code) for row in (*BY_CODE.values(), *BY_OUTCOME.values())}
    told = [
        (status, code)
        for status, codes in re.findall(r"^\| (\d{3}) \| ([^|]+) \|", README, re.MULTILINE)
        for code in re.findall(r"`(\w+)`", codes)
    ]
    assert len(told) > 15
    assert set(told) <= rows


def configurations() -> list[str]:
    """YAML blocks that are the proxy's."""
    every = [block for text in TEXTS.values() for block in blocks(text, "yaml")]
    return [
        one for one in every if set(yaml.safe_load(one)) <= set(Settings.model_fields) and "tenants:\n  -" not in one
    ]


@pytest.mark.parametrize("block", configurations())
def test_configurations_load(block: str, tmp_path: Path) -> None:
    document = yaml.safe_load(block)
    file = tmp_path / "penstock.yaml"
    file.write_text(block, encoding="utf-8")
    for name in re.findall(r"file: (\S+\.yaml)", block):
        (tmp_path / name).write_text("tenants: []\n", encoding="utf-8")
    document.setdefault("upstreams", [{"url": "http://127.0.0.1:8000"}])
    file.write_text(yaml.safe_dump(document), encoding="utf-8")
    load(file, {}, {})


@pytest.mark.parametrize("block", [one for one in blocks(README, "yaml") if "tenants:\n  - name" in one])
def test_the_tenants_file_of_the_readme_loads(block: str, tmp_path: Path) -> None:
    (tmp_path / "tenants.yaml").write_text(block, encoding="utf-8")
    file = tmp_path / "penstock.yaml"
    file.write_text("upstreams: [{url: 'http://127.0.0.1:8000'}]\ntenants: {file: tenants.yaml}\n", encoding="utf-8")
    assert load(file, {}, {}).tenants.file is not None
