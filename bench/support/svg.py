"""Small charts as SVG, by the standard library alone: panels of lines over a logarithmic or an even axis."""

from __future__ import annotations

import html
import math

COLORS = ("#1f6fb4", "#d1603d", "#2f8f5b", "#8a5bb0", "#8c6d31", "#444444")
STYLE = ("<style>text{font:11px sans-serif;fill:#333}.t{font-weight:bold;font-size:12px}"
         ".g{stroke:#ddd;stroke-width:1}.a{stroke:#666;stroke-width:1}</style>")  # fmt: skip


class Panel:
    """One chart. xs: the ticks, as (position, label); x and y are positions on the same scales."""

    width, height = 380, 250
    left, right, top, bottom = 48, 12, 30, 36
    keys_from = 42  # the height of the first name

    def __init__(self, title, x_title, x_ticks, y_title, y_ticks, log_x=False, log_y=False):
        self.title, self.x_title, self.y_title = title, x_title, y_title
        self.x_ticks, self.y_ticks = x_ticks, y_ticks
        self.log_x, self.log_y = log_x, log_y
        self.marks: list[str] = []
        self.keys: list[tuple[str, str]] = []

    def _at(self, value, ticks, log, start, length):
        of = math.log if log else float
        low, high = of(ticks[0][0]), of(ticks[-1][0])
        return start + length * (of(value) - low) / (high - low or 1)

    def x(self, value):
        return self._at(value, self.x_ticks, self.log_x, self.left, self.width - self.left - self.right)

    def y(self, value):
        return self._at(value, self.y_ticks, self.log_y, self.height - self.bottom,
                        -(self.height - self.top - self.bottom))  # fmt: skip

    def line(self, points, color, dashed=False, dots=True):
        path = " ".join(f"{self.x(a):.1f},{self.y(b):.1f}" for a, b in points)
        dash = ' stroke-dasharray="4 3"' if dashed else ""
        self.marks.append(f'<polyline points="{path}" fill="none" stroke="{color}" stroke-width="1.6"{dash}/>')
        if dots:
            self.marks += [f'<circle cx="{self.x(a):.1f}" cy="{self.y(b):.1f}" r="2.2" fill="{color}"/>'
                           for a, b in points]  # fmt: skip

    def dot(self, a, b, color, label=""):
        self.marks.append(f'<circle cx="{self.x(a):.1f}" cy="{self.y(b):.1f}" r="3.5" fill="{color}">'
                          f"<title>{html.escape(label)}</title></circle>")  # fmt: skip

    def key(self, name, color):
        self.keys.append((name, color))

    def note(self, a, b, text):
        self.marks.append(f'<text x="{self.x(a):.1f}" y="{self.y(b):.1f}">{html.escape(text)}</text>')

    def svg(self, dx, dy):
        low, right = self.height - self.bottom, self.width - self.right
        out = [f'<g transform="translate({dx},{dy})">',
               f'<text class="t" x="{self.left}" y="16">{html.escape(self.title)}</text>']  # fmt: skip
        for value, label in self.y_ticks:
            y = self.y(value)
            out.append(f'<line class="g" x1="{self.left}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}"/>')
            out.append(f'<text x="{self.left - 5}" y="{y + 4:.1f}" text-anchor="end">{label}</text>')
        for value, label in self.x_ticks:
            out.append(f'<text x="{self.x(value):.1f}" y="{low + 14}" text-anchor="middle">{label}</text>')
        out.append(f'<line class="a" x1="{self.left}" x2="{right}" y1="{low}" y2="{low}"/>')
        out.append(f'<text x="{(self.left + right) / 2}" y="{low + 29}" text-anchor="middle">'
                   f"{html.escape(self.x_title)}</text>")  # fmt: skip
        out.append(f'<text x="{self.left}" y="27" fill="#666">{html.escape(self.y_title)}</text>')
        out += self.marks
        for i, (name, color) in enumerate(self.keys):
            y = self.keys_from + 14 * i
            out.append(f'<rect x="{right - 118}" y="{y - 8}" width="9" height="9" fill="{color}"/>')
            out.append(f'<text x="{right - 105}" y="{y}">{html.escape(name)}</text>')
        out.append("</g>")
        return "\n".join(out)


def page(panels, columns):
    """The panels in rows of `columns`."""
    rows = -(-len(panels) // columns)
    width, height = columns * max(p.width for p in panels), rows * max(p.height for p in panels)
    body = [p.svg(i % columns * p.width, i // columns * p.height) for i, p in enumerate(panels)]
    return (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}">\n'
            f'{STYLE}\n<rect width="{width}" height="{height}" fill="white"/>\n'
            + "\n".join(body) + "\n</svg>\n")  # fmt: skip
