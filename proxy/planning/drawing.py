"""The two canvases of a chart: SVG inside an HTML page, and a PNG.

PNG (RFC 2083): signature, then chunks of length, type, data, CRC-32; 8-bit RGB rows, each after a filter byte 0,
deflated. Letters are a 5 x 7 dot matrix, one byte per column, lowest bit on top; small letters print as capitals.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from html import escape
from itertools import pairwise
from math import ceil, hypot

from proxy.planning.charts import HEIGHT, WIDTH, Chart

FONT = {
    "0": "3e5149453e", "1": "00427f4000", "2": "4261514946", "3": "2141454b31", "4": "1814127f10", "5": "2745454539",
    "6": "3c4a494930", "7": "0171090503", "8": "3649494936", "9": "064949291e", "A": "7e1111117e", "B": "7f49494936",
    "C": "3e41414122", "D": "7f4141221c", "E": "7f49494941", "F": "7f09090901", "G": "3e4149497a", "H": "7f0808087f",
    "I": "00417f4100", "J": "2040413f01", "K": "7f08142241", "L": "7f40404040", "M": "7f020c027f", "N": "7f0408107f",
    "O": "3e4141413e", "P": "7f09090906", "Q": "3e4151215e", "R": "7f09192946", "S": "4649494931", "T": "01017f0101",
    "U": "3f4040403f", "V": "1f2040201f", "W": "3f4038403f", "X": "6314081463", "Y": "0708700807", "Z": "6151494543",
    ".": "0060600000", ",": "0050300000", "-": "0808080808", "/": "2010080402", "+": "08083e0808", ":": "0036360000",
    "%": "2313086462", "(": "001c224100", ")": "0041221c00", "_": "4040404040", "=": "1414141414",
}  # fmt: skip
ADVANCE = 6
GLYPHS = {letter: bytes.fromhex(columns) for letter, columns in FONT.items()}
STYLE = "body{font:14px sans-serif;margin:2em}svg{background:#fff}pre{background:#f4f4f4;padding:1em}"


class SvgCanvas:
    """Collects SVG elements."""

    def __init__(self) -> None:
        self.elements: list[str] = []

    def line(self, points: Sequence[tuple[float, float]], colour: str) -> None:
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        self.elements.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.5"/>')

    def dot(self, x: float, y: float, colour: str) -> None:
        self.elements.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="{colour}"/>')

    def text(self, x: float, y: float, words: str, colour: str, anchor: str = "start") -> None:
        place = f'x="{x:.1f}" y="{y:.1f}" fill="{colour}" text-anchor="{anchor}" font-size="12"'
        self.elements.append(f"<text {place}>{escape(words)}</text>")


class PngCanvas:
    """White RGB pixels."""

    def __init__(self, width: int, height: int) -> None:
        self.width, self.height = width, height
        self.pixels = bytearray(b"\xff" * (width * height * 3))

    def _set(self, x: float, y: float, colour: bytes) -> None:
        column, row = round(x), round(y)
        if 0 <= column < self.width and 0 <= row < self.height:
            at = (row * self.width + column) * 3
            self.pixels[at : at + 3] = colour

    def line(self, points: Sequence[tuple[float, float]], colour: str) -> None:
        ink = bytes.fromhex(colour[1:])
        for (x0, y0), (x1, y1) in pairwise(points):
            steps = max(1, ceil(hypot(x1 - x0, y1 - y0)))
            for step in range(steps + 1):
                self._set(x0 + (x1 - x0) * step / steps, y0 + (y1 - y0) * step / steps, ink)

    def dot(self, x: float, y: float, colour: str) -> None:
        ink = bytes.fromhex(colour[1:])
        for across in range(-4, 5):
            for down in range(-4, 5):
                if hypot(across, down) <= 4:
                    self._set(x + across, y + down, ink)

    def text(self, x: float, y: float, words: str, colour: str, anchor: str = "start") -> None:
        ink = bytes.fromhex(colour[1:])
        width = ADVANCE * len(words)
        left = x - {"start": 0, "middle": width / 2, "end": width}[anchor]
        for index, letter in enumerate(words.upper()):
            for column, bits in enumerate(GLYPHS.get(letter, b"")):
                for row in range(7):
                    if bits >> row & 1:
                        self._set(left + index * ADVANCE + column, y - 8 + row, ink)

    def encoded(self) -> bytes:
        """The picture as a PNG file."""
        stride = self.width * 3
        rows = b"".join(b"\0" + self.pixels[at : at + stride] for at in range(0, len(self.pixels), stride))
        header = struct.pack(">IIBBBBB", self.width, self.height, 8, 2, 0, 0, 0)
        chunks = (_chunk(b"IHDR", header), _chunk(b"IDAT", zlib.compress(rows, 9)), _chunk(b"IEND", b""))
        return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def as_html(charts: Sequence[Chart], title: str, text: str) -> str:
    """One page without scripts or foreign addresses: the charts, then the plan's text."""
    canvas = SvgCanvas()
    for index, chart in enumerate(charts):
        chart.draw(canvas, index * HEIGHT)
    height = HEIGHT * len(charts)
    body = "\n".join(canvas.elements)
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f"<style>{STYLE}</style></head><body><h1>{escape(title)}</h1>\n"
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" role="img">\n{body}\n</svg>\n'
        f"<pre>{escape(text)}</pre></body></html>\n"
    )


def as_png(charts: Sequence[Chart]) -> bytes:
    """The charts below one another."""
    canvas = PngCanvas(WIDTH, HEIGHT * len(charts))
    for index, chart in enumerate(charts):
        chart.draw(canvas, index * HEIGHT)
    return canvas.encoded()
