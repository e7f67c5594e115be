# SPDX-License-Identifier: Apache-2.0
"""Two kinds of SVG: cost against size on logarithmic axes, and bars of ratios. Plain shapes and text, readable in light and dark pages."""
import math
import os
from html import escape

from table import METRICS

COLOURS = ["#0a7d5a", "#c2410c", "#6d28d9", "#1d4ed8", "#a16207", "#be185d"]
WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 640, 360, 70, 150, 40, 50
STYLE = ("<style>text{font:12px sans-serif;fill:#333}.t{font-weight:bold;font-size:14px}.g{stroke:#8884;stroke-width:1}"
         "@media(prefers-color-scheme:dark){text{fill:#ddd}}</style>")


def text(x, y, words, anchor="start", style="", turn=""):
    extra = (f' class="{style}"' if style else "") + (f' transform="{turn}"' if turn else "")
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{extra}>{escape(str(words))}</text>'


def document(width, height, parts):
    return (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img">\n{STYLE}\n'
            + "\n".join(parts) + "\n</svg>\n")


def short(value):
    if value == 0:
        return "0"
    for unit, size in (("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if abs(value) >= size:
            return f"{value / size:.3g}{unit}"
    return f"{value:.3g}"


def powers(low, high):
    """Lines at powers of ten, or at 1, 2, 5 times them when there would be too few."""
    ticks = [10.0 ** e for e in range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)]
    if len([t for t in ticks if low <= t <= high]) < 3:
        ticks = [t * m for t in ticks for m in (1, 2, 5)]
    return [t for t in ticks if low * 0.999 <= t <= high * 1.001]


def lines(title, x_title, y_title, series):
    """`series`: {label: [(x, y)]}, all positive."""
    points = [point for values in series.values() for point in values]
    low_x, high_x = min(x for x, _ in points), max(x for x, _ in points)
    low_y, high_y = min(y for _, y in points) / 1.2, max(y for _, y in points) * 1.2
    high_x = high_x if high_x > low_x else low_x * 2

    def place(x, y):
        part_x = math.log(x / low_x) / math.log(high_x / low_x)
        part_y = math.log(y / low_y) / math.log(high_y / low_y)
        return LEFT + part_x * (WIDTH - LEFT - RIGHT), HEIGHT - BOTTOM - part_y * (HEIGHT - TOP - BOTTOM)

    parts = [text(LEFT, 22, title, style="t"), text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 12, x_title, "middle"),
             text(16, (TOP + HEIGHT - BOTTOM) / 2, y_title, "middle", turn=f"rotate(-90 16 {(TOP + HEIGHT - BOTTOM) / 2:.0f})")]
    for tick in powers(low_y, high_y):
        _, y = place(low_x, tick)
        parts += [f'<line class="g" x1="{LEFT}" y1="{y:.1f}" x2="{WIDTH - RIGHT}" y2="{y:.1f}"/>', text(LEFT - 6, y + 4, short(tick), "end")]
    for x_value in sorted({x for x, _ in points}):
        x, _ = place(x_value, low_y)
        parts += [f'<line class="g" x1="{x:.1f}" y1="{TOP}" x2="{x:.1f}" y2="{HEIGHT - BOTTOM}"/>', text(x, HEIGHT - BOTTOM + 18, short(x_value), "middle")]
    for index, (label, values) in enumerate(series.items()):
        colour = COLOURS[index % len(COLOURS)]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in (place(*point) for point in sorted(values)))
        parts.append(f'<polyline fill="none" stroke="{colour}" stroke-width="2" points="{path}"/>')
        parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>' for x, y in (place(*point) for point in values)]
        y = TOP + 10 + 20 * index
        parts += [f'<rect x="{WIDTH - RIGHT + 12}" y="{y - 9}" width="12" height="10" fill="{colour}"/>', text(WIDTH - RIGHT + 30, y, label)]
    return document(WIDTH, HEIGHT, parts)


def bars(title, rows, labels):
    """`rows`: [(name, {contender: ratio})]; the bar's length is the logarithm of the ratio, to the right of 1 where we are better."""
    left, right, step = 250, 60, 14
    limit = max([2.0] + [max(r, 1 / r) for _, ratios in rows for r in ratios.values()])
    height = 60 + sum(step * len(ratios) + 8 for _, ratios in rows) + 30
    lowest = min([1.0] + [r for _, ratios in rows for r in ratios.values()])
    start, end = math.log(min(lowest, 1 / 1.25)), math.log(limit)
    scale = (WIDTH - left - right) / (end - start)
    zero = left - start * scale
    parts = [text(10, 22, title, style="t")]
    y = 44
    for name, ratios in rows:
        parts.append(text(left - 8, y + step * len(ratios) / 2 + 3, name, "end"))
        for contender, ratio in ratios.items():
            tip = zero + math.log(ratio) * scale
            colour = COLOURS[1 + labels.index(contender) % (len(COLOURS) - 1)]
            parts += [f'<rect x="{min(zero, tip):.1f}" y="{y}" width="{max(abs(tip - zero), 1):.1f}" height="{step - 3}" fill="{colour}"/>',
                      text(max(zero, tip) + 4, y + step - 4, f"{ratio:.2f}")]
            y += step
        y += 8
    parts.append(f'<line class="g" x1="{zero:.1f}" y1="36" x2="{zero:.1f}" y2="{y}"/>')
    for index, contender in enumerate(labels):
        parts += [f'<rect x="{10 + index * 150}" y="{y + 8}" width="12" height="10" fill="{COLOURS[1 + index % (len(COLOURS) - 1)]}"/>',
                  text(28 + index * 150, y + 17, contender)]
    return document(WIDTH, height, parts)


def write_all(report, directory):
    """One plot a scaling law, one a section for the ratios. Returns the files' names."""
    os.makedirs(directory, exist_ok=True)
    labels = report["contenders"]
    written = []

    def write(name, content):
        with open(os.path.join(directory, name), "w", encoding="utf-8") as out:
            out.write(content)
        written.append(name)

    for result in report["results"]:
        series = {}
        for row in result["rows"]:
            if result["law"] and row.get(result["primary"]):
                series.setdefault(labels[row["contender"]], []).append((row["point"], row[result["primary"]]))
        if series:
            write(result["name"].replace("/", "-") + ".svg", lines(result["title"], result["axis"], METRICS[result["primary"]].title, series))
    for section in dict.fromkeys(result["section"] for result in report["results"]):
        rows = []
        for result in report["results"]:
            if result["section"] != section or result["law"]:
                continue
            for point in dict.fromkeys(row["point"] for row in result["rows"]):
                ratios = {labels[row["contender"]]: row["ratio"] for row in result["rows"] if row["point"] == point and row.get("ratio")}
                if ratios:
                    rows.append((result["title"] + ("" if point is None else f", {result['axis']} {point}".replace(",  ", ", ")), ratios))
        if rows:
            write(f"{section}.svg", bars("peer against ours, above 1 ours is better", rows, list(dict.fromkeys(c for _, r in rows for c in r))))
    return written
