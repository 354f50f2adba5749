"""A document as blocks, written as Markdown, as text for a terminal, or as one HTML page without scripts.

Charts are the planning room's: drawn as SVG inside the page, left out of text and Markdown, where bars stand for them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

from proxy.loadtest.text import aligned, amount, bar
from proxy.planning.charts import COLOURS, HEIGHT, WIDTH, Chart
from proxy.planning.drawing import SvgCanvas

STYLE = """
:root{color-scheme:light}
body{font:15px/1.5 system-ui,sans-serif;margin:2.5em auto;max-width:62em;padding:0 1em;color:#1c2733;background:#fff}
h1{font-size:1.7em;margin:0 0 .3em}h2{font-size:1.2em;margin:2em 0 .6em;border-bottom:1px solid #d8dfe6}
table{border-collapse:collapse;font-variant-numeric:tabular-nums;margin:.6em 0}
th,td{padding:.3em .9em;text-align:right;border-bottom:1px solid #e8edf1}
th:first-child,td:first-child{text-align:left}th{background:#f3f6f8;font-weight:600}
.bars{display:grid;grid-template-columns:max-content 1fr max-content;gap:.3em .8em;align-items:center}
.bars{margin:.4em 0 1.2em}
.bars i{display:block;height:1.1em;border-radius:2px;min-width:1px}.bars b{grid-column:1/-1;font-weight:600}
svg{width:calc(50% - .4em);height:auto;margin:.6em 0}@media(max-width:50em){svg{width:100%}}
li{margin:.25em 0}.warning{color:#a33a10}
pre{background:#f3f6f8;padding:1em;overflow:auto;border-radius:4px}
"""


@dataclass(frozen=True, slots=True)
class Heading:
    text: str


@dataclass(frozen=True, slots=True)
class Lines:
    """Sentences, each an item of a list."""

    lines: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Grid:
    """A table; the first row is its head, the first column its labels."""

    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True, slots=True)
class Bars:
    """Values of one unit on one scale."""

    title: str
    unit: str
    values: tuple[tuple[str, float], ...]

    @property
    def top(self) -> float:
        return max((value for _, value in self.values), default=0.0)


@dataclass(frozen=True, slots=True)
class Code:
    """Text to be copied as it is."""

    text: str


@dataclass(frozen=True, slots=True)
class Drawing:
    chart: Chart


Block = Heading | Lines | Grid | Bars | Code | Drawing


def as_markdown(title: str, blocks: Sequence[Block]) -> str:
    parts = [f"# {title}"]
    for block in blocks:
        match block:
            case Heading(text):
                parts.append(f"## {text}")
            case Lines(lines):
                parts.append("\n".join(f"- {_plain(line)}" for line in lines))
            case Grid(rows):
                head, *body = ([_plain(cell) for cell in row] for row in rows)
                ruled = [head, ["---", *["---:"] * (len(head) - 1)], *body]
                parts.append("\n".join(f"| {' | '.join(row)} |" for row in ruled))
            case Bars():
                parts.append(f"```\n{_bars(block)}\n```")
            case Code(text):
                parts.append(f"```\n{text}\n```")
    return "\n\n".join(parts) + "\n"


def as_text(title: str, blocks: Sequence[Block]) -> str:
    parts = [title + "\n" + "=" * len(title)]
    for block in blocks:
        match block:
            case Heading(text):
                parts.append(f"{text}\n{'-' * len(text)}")
            case Lines(lines):
                parts.append("\n".join(f"- {line}" for line in lines))
            case Grid(rows):
                parts.append(aligned(rows))
            case Bars():
                parts.append(_bars(block))
            case Code(text):
                parts.append("\n".join(f"  {line}" for line in text.splitlines()))
    return "\n\n".join(parts)


def _plain(text: str) -> str:
    """Nothing in it is taken for Markdown's table, HTML or link."""
    return text.replace("|", "\\|").replace("<", "&lt;").replace("[", "\\[")


def _bars(block: Bars) -> str:
    width = max(len(name) for name, _ in block.values)
    rows = (
        f"{name.ljust(width)}  {bar(value, block.top)}  {amount(value)} {block.unit}" for name, value in block.values
    )
    return "\n".join([block.title, *(row.rstrip() for row in rows)])


def as_page(title: str, blocks: Sequence[Block]) -> str:
    """One self-contained file: no script, no foreign address."""
    body = "\n".join(WRITERS[type(block)](block) for block in blocks)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta name="viewport" content="width=device-width"><title>{escape(title)}</title>'
        f"<style>{STYLE}</style></head><body><h1>{escape(title)}</h1>\n{body}\n</body></html>\n"
    )


def _page_lines(block: Lines) -> str:
    items = (f"<li{' class=warning' if line.startswith('WARNING') else ''}>{escape(line)}</li>" for line in block.lines)
    return f"<ul>{''.join(items)}</ul>"


def _page_grid(block: Grid) -> str:
    head, *body = block.rows
    rows = [_row("th", head), *(_row("td", row) for row in body)]
    return f"<table>{''.join(rows)}</table>"


def _row(cell: str, row: Sequence[str]) -> str:
    return f"<tr>{''.join(f'<{cell}>{escape(text)}</{cell}>' for text in row)}</tr>"


def _page_bars(block: Bars) -> str:
    rows = [f"<b>{escape(block.title)}</b>"]
    for index, (name, value) in enumerate(block.values):
        share = 100 * value / block.top if block.top > 0 else 0.0
        colour = COLOURS[index] if len(block.values) == 2 else COLOURS[0]  # two: compared; more: one series
        fill = f"width:{share:.1f}%;background:{colour}"
        rows.append(
            f'<span>{escape(name)}</span><span><i style="{fill}"></i></span>'
            f"<span>{amount(value)} {escape(block.unit)}</span>"
        )
    return f'<div class="bars">{"".join(rows)}</div>'


def _page_drawing(block: Drawing) -> str:
    canvas = SvgCanvas()
    block.chart.draw(canvas)
    size = f'width="{WIDTH}" height="{HEIGHT}" viewBox="0 0 {WIDTH} {HEIGHT}"'
    elements = "\n".join(canvas.elements)
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img">\n{elements}\n</svg>'


WRITERS: dict[type, Callable[..., str]] = {
    Heading: lambda block: f"<h2>{escape(block.text)}</h2>",
    Lines: _page_lines,
    Grid: _page_grid,
    Bars: _page_bars,
    Code: lambda block: f"<pre>{escape(block.text)}</pre>",
    Drawing: _page_drawing,
}
