from __future__ import annotations

from xml.etree import ElementTree

import pytest

from proxy.loadtest.blocks import Bars, Block, Code, Drawing, Grid, Heading, Lines, as_markdown, as_page, as_text
from proxy.planning.charts import Axis, Chart, Series

CHART = Chart("curve", Axis("x", 0, 1), Axis("y", 0, 1), (Series("s", [(0, 0), (1, 1)]),))
BLOCKS: list[Block] = [
    Heading("Summary"),
    Lines(("plain <b>", "WARNING careful")),
    Grid((("", "a|b"), ("row", "1"))),
    Bars("speed", "ms", (("one", 5.0), ("other", 10.0))),
    Code("run --now"),
    Drawing(CHART),
]


def test_markdown() -> None:
    assert as_markdown("Title", BLOCKS) == (
        "# Title\n\n## Summary\n\n- plain &lt;b>\n- WARNING careful\n\n"
        "|  | a\\|b |\n| --- | ---: |\n| row | 1 |\n\n"
        "```\nspeed\n"
        "one    ████████████████                  5.00 ms\n"
        "other  ████████████████████████████████  10.00 ms\n```\n\n"
        "```\nrun --now\n```\n"
    )


def test_text() -> None:
    text = as_text("Title", BLOCKS)
    assert text.startswith("Title\n=====\n\nSummary\n-------\n\n- plain <b>\n- WARNING careful\n\n     a|b\nrow    1\n")
    assert text.endswith("\n\n  run --now")


def test_page_is_one_well_formed_file_without_scripts_or_foreign_addresses() -> None:
    page = as_page("<T>", BLOCKS)
    body = page.split("\n", 1)[1].replace('<meta charset="utf-8">', "").replace("class=warning", 'class="warning"')
    tree = ElementTree.fromstring(body.replace('<meta name="viewport" content="width=device-width">', ""))
    assert tree.findtext(".//h1") == "<T>"
    assert [one.text for one in tree.findall(".//li")] == ["plain <b>", "WARNING careful"]
    assert [one.get("class") for one in tree.findall(".//li")] == [None, "warning"]
    assert [one.text for one in tree.findall(".//td")] == ["row", "1"]
    assert [one.get("style", "").split(";")[0] for one in tree.findall(".//i")] == ["width:50.0%", "width:100.0%"]
    assert len(tree.findall(".//{http://www.w3.org/2000/svg}polyline")) > 2
    assert "<script" not in page
    assert "http" not in page.replace("http://www.w3.org/2000/svg", "")


@pytest.mark.parametrize("values", [(), (("a", 0.0),)])
def test_bars_of_nothing(values: tuple[tuple[str, float], ...]) -> None:
    assert Bars("t", "u", values).top == 0
    if values:
        assert "width:0.0%" in as_page("t", [Bars("t", "u", values)])
