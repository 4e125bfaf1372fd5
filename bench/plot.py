#!/usr/bin/env python3
"""Draws what `make bench` measured: writes SVG files, the figures they show, and the tables of docs/performance.md.

usage: plot.py RESULTS_JSON DOCS_DIRECTORY [NAME...]

NAMEs stand for the lifecycles in the order in which they were measured ("this lifecycle", "the reference"); directories of
the machine are not written. Plain Python, no packages.
"""

import json
import pathlib
import sys
from xml.sax.saxutils import escape

NAMES = ("this lifecycle", "the reference")
BEGIN, END = "<!-- figures: made by make bench-plots -->", "<!-- end of figures -->"
COLOURS = {"floor": "#9aa0a6", 0: "#1a73e8", 1: "#e8710a"}
WIDTH, LEFT, BAR, GAP, TOP = 860, 250, 15, 14, 46


def seconds(value):
    return f"{value * 1000:.1f} ms" if value < 0.1 else f"{value:.2f} s"


def megabytes(value):
    return f"{value / 1e6:.1f} MB"


def bars(title, groups, show):
    """An SVG: for each (label, [(series, colour, value)]) a group of bars from zero, each with its value."""
    groups = [(label, [bar for bar in series if bar[2]]) for label, series in groups]
    groups = [(label, series) for label, series in groups if series]
    most = max(value for _, series in groups for *_, value in series)
    legend = dict.fromkeys((name, colour) for _, series in groups for name, colour, _ in series)
    height = TOP + sum(len(series) * BAR + GAP for _, series in groups) + 8
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" viewBox="0 0 {WIDTH} {height}" '
           f'font-family="sans-serif" font-size="12" role="img" aria-label="{escape(title)}">',
           f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>',
           f'<text x="8" y="18" font-size="14" font-weight="bold" fill="#202124">{escape(title)}</text>']
    x = LEFT
    for name, colour in legend:
        out.append(f'<rect x="{x}" y="28" width="10" height="10" fill="{colour}"/>'
                   f'<text x="{x + 15}" y="37" fill="#202124">{escape(name)}</text>')
        x += 40 + 7 * len(name)
    y = TOP
    for label, series in groups:
        middle = y + len(series) * BAR / 2 + 4
        out.append(f'<text x="{LEFT - 8}" y="{middle:.0f}" text-anchor="end" fill="#202124">{escape(label)}</text>')
        for _, colour, value in series:
            width = max(1.0, (WIDTH - LEFT - 90) * value / most)
            out.append(f'<rect x="{LEFT}" y="{y + 1}" width="{width:.1f}" height="{BAR - 2}" fill="{colour}"/>'
                       f'<text x="{LEFT + width + 5:.1f}" y="{y + BAR - 4}" fill="#5f6368">{escape(show(value))}</text>')
            y += BAR
        y += GAP
    return "\n".join([*out, "</svg>", ""])


def table(heads, rows):
    lines = ["| " + " | ".join(heads) + " |", "|---|" + "---:|" * (len(heads) - 1)]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows])


class Results:
    """What was measured, under names that say nothing of the machine."""

    def __init__(self, path, names):
        self.data = json.loads(pathlib.Path(path).read_text())
        known = [name for name in self.data["demonstration"]]
        self.names = dict(zip(known, [*names, *NAMES[len(names):], *known[2:]]))
        self.data["starts_of_a_process"] = self.renamed(self.data["starts_of_a_process"])
        self.data["demonstration"] = self.renamed(self.data["demonstration"])
        for part in self.data["parts"]:
            part["lifecycles"] = self.renamed(part["lifecycles"])
        self.lifecycles = list(self.names.values())

    def renamed(self, values):
        return {self.names.get(name, name): value for name, value in values.items()}

    def series(self, of, key):
        return [(name, COLOURS[number], (of.get(name) or {}).get(key)) for number, name in enumerate(self.lifecycles)]

    def parts(self):
        return [(part["what"], [("floor", COLOURS["floor"], part["floor_seconds"]), *self.series(part["lifecycles"], "seconds")])
                for part in self.data["parts"]]

    def memory(self):
        rows = [(part["what"], self.series(part["lifecycles"], "peak_bytes")) for part in self.data["parts"]]
        return rows + [("creator, the demonstration", self.series(self.data["demonstration"], "peak_bytes"))]

    def builds(self):
        return [(label, self.series(self.data["demonstration"], key))
                for label, key in (("first build", "first_seconds"), ("second build", "second_seconds"))]

    def starts(self):
        of = self.data["starts_of_a_process"]
        least = of["the process itself"]["seconds"]
        return [("the process itself", [("floor", COLOURS["floor"], least)]),
                ("started by the launcher", self.series(of, "seconds"))]


def section(results):
    """The part of the page that is made of figures."""
    data = results.data
    show = lambda value, how: how(value) if value else "-"  # noqa: E731
    rows = [[part["what"], show(part["floor_seconds"], seconds),
             *(show((part["lifecycles"].get(name) or {}).get(key), how)
               for name in results.lifecycles for key, how in (("seconds", seconds), ("peak_bytes", megabytes)))]
            for part in data["parts"]]
    heads = ["", "floor", *(text for name in results.lifecycles for text in (name, "memory"))]
    return "\n\n".join([
        BEGIN,
        f"Measured on {data['cores']} cores with {data['bytes'] / 1e6:.0f} MB of files; medians of {data['rounds']} rounds, for "
        f"starts of {data['starts']}. The figures are in [results.json](performance/results.json).",
        "## Parts of a build", "![How long the parts of a build take](performance/parts.svg)", table(heads, rows),
        "## Memory", "![The most memory each part had](performance/memory.svg)",
        "## A build of the demonstration's application", "![How long its builds take](performance/builds.svg)",
        "## The start of a process", "![How long a process takes to start](performance/starts.svg)",
        END])


def main(path, docs, *names):
    results, docs = Results(path, names), pathlib.Path(docs)
    out = docs / "performance"
    out.mkdir(exist_ok=True)
    for name, title, groups, show in (
            ("parts", "Seconds of each part; less is better", results.parts(), seconds),
            ("memory", "Peak memory; less is better", results.memory(), megabytes),
            ("builds", "Seconds of a build by creator; less is better", results.builds(), seconds),
            ("starts", "Time until a process has started and ended; less is better", results.starts(), seconds)):
        (out / f"{name}.svg").write_text(bars(title, groups, show))
    (out / "results.json").write_text(json.dumps(results.data, indent=1) + "\n")
    page = docs / "performance.md"
    before, rest = page.read_text().split(BEGIN)
    page.write_text(before + section(results) + rest.split(END)[1])


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    main(*sys.argv[1:])
