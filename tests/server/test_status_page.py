"""The files of the status page; tests/e2e/test_status_page.py opens it in a browser."""

from __future__ import annotations

import re
from importlib.resources import files

import orjson

from proxy.admission.limits import Reason
from proxy.server.admin import PAGE_FILES
from proxy.server.state import state_document
from tests.snapshots import TARGETS, snapshot, upstream

PAGE = files("proxy.server") / "status_page"
SCRIPTS = ("status.js", "charts.js", "words.js")


def test_the_page_asks_only_for_what_is_served() -> None:
    page = (PAGE / "index.html").read_text("utf-8")
    scripts = "".join((PAGE / name).read_text("utf-8") for name in SCRIPTS)
    served = {path.lstrip("/") for path in PAGE_FILES} | {"metrics", "admin/state", "admin/history", "admin/events"}
    asked = set(re.findall(r'(?:src|href)="([^"#]+)"', page)) | set(re.findall(r'"(admin/\w+)"', scripts))
    asked |= {name.removeprefix("./") for name in re.findall(r'from "([^"]+)"', scripts)}
    assert asked == served - {""} | {"uplot/LICENSE"}


def test_the_page_has_no_inline_script_or_style_and_every_place_is_used() -> None:
    page = (PAGE / "index.html").read_text("utf-8")
    scripts = "".join((PAGE / name).read_text("utf-8") for name in SCRIPTS)
    assert not re.search(r"<script>|<style| style=| on[a-z]+=", page)
    assert "innerHTML" not in scripts
    places = set(re.findall(r'data-is="(\w+)"', page)) | set(re.findall(r'id="([\w-]+)"', page))
    missing = [place for place in places if f'"{place}"' not in scripts and f'"#{place}"' not in page]
    assert not [one for one in missing if not one.endswith(("-title", "-legend"))]


def test_the_page_shows_only_what_the_state_has() -> None:
    state = orjson.dumps(state_document(snapshot(upstream()), TARGETS, {}, {}, {})).decode()
    for name in SCRIPTS:
        script = (PAGE / name).read_text("utf-8")
        for field in set(re.findall(r"\b(?:one|state|step)\.([a-z]+_[a-z_]+)\b", script)):
            assert f'"{field}"' in state, f"{name}: {field}"


def test_every_reason_of_a_limit_change_has_words() -> None:
    told = (PAGE / "words.js").read_text("utf-8")
    assert set(re.findall(r'^  (\w+): "', told, re.MULTILINE)) == set(Reason)


def test_the_page_is_self_contained() -> None:
    for name in ("index.html", "status.css", "icon.svg", *SCRIPTS):
        assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)", (PAGE / name).read_text("utf-8")), name
    assert "Permission is hereby granted" in (PAGE / "uplot/LICENSE").read_text("utf-8")
