"""The PNG decodes to the pixels drawn; the page is well-formed and holds no foreign text unescaped."""

from __future__ import annotations

import struct
import zlib
from xml.etree import ElementTree

from proxy.planning.charts import HEIGHT, WIDTH, Axis, Chart, Series
from proxy.planning.drawing import GLYPHS, PngCanvas, SvgCanvas, as_html, as_png

CHART = Chart("<A & B>", Axis("x", 0, 1), Axis("y", 0, 1), (Series("s", [(0, 0), (1, 1)]),))


def decoded(data: bytes) -> tuple[int, int, list[bytes]]:
    """Width, height and rows of a PNG written without filters."""
    assert data.startswith(b"\x89PNG\r\n\x1a\n")
    at, pixels, width, height = 8, b"", 0, 0
    while at < len(data):
        length, kind = struct.unpack(">I4s", data[at : at + 8])
        body = data[at + 8 : at + 8 + length]
        assert struct.unpack(">I", data[at + 8 + length : at + 12 + length])[0] == zlib.crc32(kind + body)
        if kind == b"IHDR":
            width, height = struct.unpack(">II", body[:8])
        pixels += body if kind == b"IDAT" else b""
        at += 12 + length
    raw = zlib.decompress(pixels)
    stride = width * 3 + 1
    return width, height, [raw[row * stride + 1 : (row + 1) * stride] for row in range(height)]


def test_png_pixels() -> None:
    canvas = PngCanvas(20, 12)
    canvas.line([(2, 1), (17, 1)], "#ff0000")
    canvas.dot(10, 40, "#00ff00")  # outside: clipped
    canvas.text(0, 11, "I?", "#0000ff")
    width, height, rows = decoded(canvas.encoded())
    assert (width, height) == (20, 12)
    assert rows[1] == b"\xff" * 6 + b"\xff\x00\x00" * 16 + b"\xff" * 6
    assert rows[0] == b"\xff" * 60
    blue = sum(row[3 * x : 3 * x + 3] == b"\x00\x00\xff" for row in rows for x in range(20))
    assert blue == sum(bin(column).count("1") for column in GLYPHS["I"])


def test_anchors_and_dots() -> None:
    def columns(anchor: str) -> list[int]:
        canvas = PngCanvas(40, 12)
        canvas.text(20, 11, "HH", "#000000", anchor)
        rows = decoded(canvas.encoded())[2]
        return sorted({x for row in rows for x in range(40) if row[3 * x] == 0})

    assert (columns("start")[0], columns("middle")[0], columns("end")[0]) == (20, 14, 8)
    canvas = PngCanvas(9, 9)
    canvas.dot(4, 4, "#000000")
    assert decoded(canvas.encoded())[2][4] == b"\0" * 27


def test_charts_as_png_stand_below_one_another() -> None:
    width, height, rows = decoded(as_png([CHART, CHART]))
    assert (width, height) == (WIDTH, 2 * HEIGHT)
    assert rows[:HEIGHT] == rows[HEIGHT:]


def test_page_is_well_formed_and_escaped() -> None:
    page = as_html([CHART], "<title>", "a < b & c")
    body = page.split("\n", 1)[1].replace('<meta charset="utf-8">', "")
    tree = ElementTree.fromstring(body)
    assert tree.find(".//h1").text == "<title>"  # type: ignore[union-attr]
    assert tree.find(".//pre").text == "a < b & c"  # type: ignore[union-attr]
    assert "<script" not in page


def test_svg_elements() -> None:
    canvas = SvgCanvas()
    canvas.dot(1, 2, "#123456")
    canvas.text(1, 2, "<", "#123456", "end")
    assert canvas.elements[0] == '<circle cx="1.0" cy="2.0" r="4" fill="#123456"/>'
    assert canvas.elements[1].endswith('text-anchor="end" font-size="12">&lt;</text>')
