#!/usr/bin/env python3
"""Puts measured figures into docs/: tables and two pictures between the marks of performance_log.md.

document.py [--peers FILE] [--scaling FILE]

FILE: the JSON of `bench/run --peers --json` (also drawn over the roofline: docs/roofline.svg) and of
`bench/run --filter ^scaling --json` (docs/scaling.svg). What stands between <!-- figures: NAME --> and
<!-- end --> is replaced.
"""

from __future__ import annotations

import argparse
import json
import pathlib
import re
import statistics

from svg import COLORS, Panel, page

DOCS = pathlib.Path(__file__).resolve().parents[2] / "docs"


def put(name: str, lines: list[str]) -> None:
    path = DOCS / "performance_log.md"
    text = path.read_text(encoding="utf-8")
    start, end = f"<!-- figures: {name} -->\n", "<!-- end -->"
    if start not in text:
        raise SystemExit(f"{path}: there is no {start.strip()}")
    before, rest = text.split(start, 1)
    path.write_text(before + start + "\n".join(lines) + "\n" + end + rest.split(end, 1)[1], encoding="utf-8")


def picture(name: str, svg: str) -> None:
    (DOCS / f"{name}.svg").write_text(svg, encoding="utf-8")
    put(name, [f"![{name}]({name}.svg)"])


def three(least: float, median: float, most: float) -> str:
    text = lambda v: f"{v:.0f}" if v >= 100 else f"{v:#.3g}"
    return " · ".join(text(v) for v in (least, median, most))


def ceilings(context: dict) -> tuple[float, float]:
    """GFLOP/s and GB/s of all cores."""
    of = lambda kind: float(context[f"{kind}_threads{context['num_cpus']}"])
    return of("fma_gflops"), of("read_gbytes")


def feed_forwards(document: dict, ggml: bool) -> list[dict]:
    """What ran beside ggml has tables of its own, and is in no picture."""
    return [b for b in document["benchmarks"] if b["name"].startswith("feed_forward/")
            and not b.get("error_occurred") and ("/ggml/" in b["name"]) == ggml]  # fmt: skip


def peers_tables(document: dict) -> None:
    """A table for each stage: a row for each way of each work."""
    beside = feed_forwards(document, True)
    fork = any("/ggml_fork" in b["name"] for b in beside)
    stages = {
        "feed_forward": feed_forwards(document, False),
        "ggml_fork" if fork else "ggml": beside,
        **{stage: [b for b in document["benchmarks"] if re.match(f"{stage}(_training)?/", b["name"])
                   and not b.get("error_occurred")] for stage in ("experts", "train_step")},
    }  # fmt: skip
    groups: dict[str, dict[str, list[dict]]] = {}
    for stage, found in stages.items():
        groups[stage] = {}
        for b in found:
            groups[stage].setdefault(b["name"].rsplit("/", 1)[0], []).append(b)
    for stage, works in groups.items():
        lines = ["| work | way | ms, min · median · max | of roofline | times Shunt's |",
                 "|---|---|---|---|---|"]  # fmt: skip
        for work, ways in works.items():
            for b in ways:
                way = b["name"].rsplit("/", 1)[1]
                roof = f"{100 * b['of_roofline']:.0f} %" if "of_roofline" in b else ""
                ratio = ""
                if "to_shunt" in b:
                    ratio = three(b["to_shunt_least"], b["to_shunt"], b["to_shunt_most"])
                lines.append(f"| `{work}` | {way} | {three(b['least'], b['real_time'], b['most'])} | "
                             f"{roof} | {ratio} |")  # fmt: skip
                work = ""  # once
        lines = [line.replace("| `` |", "| |") for line in lines]
        if works:
            put(stage, lines)


def roofline(document: dict) -> None:
    peak, read = ceilings(document["context"])
    ticks = [(10.0**e, f"{10.0**e:g}") for e in range(-1, 3)]
    low = peak / 100
    panel = Panel("Feed-forward under the machine's two ceilings", "operations a byte of weights and rows",
                  ticks, "GFLOP/s", [(low, f"{low:.2g}"), (peak / 10, f"{peak / 10:.3g}"),
                                     (peak * 1.2, f"{peak * 1.2:.3g}")], log_x=True, log_y=True)  # fmt: skip
    panel.width, panel.height, panel.keys_from = 620, 360, 260
    corner = peak / read
    panel.line([(max(0.1, low / read), max(low, 0.1 * read)), (corner, peak), (100, peak)], "#666", dots=False)
    panel.note(corner, peak * 1.05, f"{peak:.0f} GFLOP/s, {read:.1f} GB/s")
    ways = {"shunt": "#1f6fb4", "shunt_packed": "#2f8f5b", "best of the others": "#d1603d"}
    best: dict[str, dict] = {}
    for b in feed_forwards(document, False):
        if "/f32/" not in b["name"]:
            continue
        work, _, way = b["name"].rsplit("/", 2)
        name = way if way in ways else "best of the others"
        if name == "best of the others":
            if work not in best or b["gflops"] > best[work]["gflops"]:
                best[work] = b
        else:
            best.setdefault(f"{work}/{way}", b)
    for name, b in best.items():
        way = name.rsplit("/", 1)[1]
        color = ways.get(way, ways["best of the others"])
        panel.dot(b["gflops"] * 1e9 / b["bytes_per_second"], max(low, b["gflops"]), color, b["name"])
    for name, color in ways.items():
        panel.key(name, color)
    picture("roofline", page([panel], 1))


def scaling(document: dict) -> None:
    """Shares of the roofline over what is turned: panels of four lines."""
    found: dict[str, dict[str, list[tuple[float, float]]]] = {}
    for b in document["benchmarks"]:
        name = re.fullmatch(
            r"scaling_(tokens|experts|top_k|skew)(_training)?/E(\d+)_K(\d+)_\w+/(f32|bf16)/T(\d+)/threads\d+"
            r"(?:/zipf([\d.]+))?", b["name"])  # fmt: skip
        if not name or b.get("error_occurred") or b.get("run_type") == "aggregate":
            continue
        curve, training, experts, top_k, kind, tokens, zipf = name.groups()
        x = {"tokens": tokens, "experts": experts, "top_k": top_k, "skew": zipf}[curve]
        line = f"{kind} {'training' if training else 'forward'}"
        found.setdefault(curve, {}).setdefault(line, {}).setdefault(float(x), []).append(b["of_roofline"])
    titles = {
        "tokens": ("Tokens (E 64, K 6)", "T"), "experts": ("Experts (3072 rows, K 1)", "E"),
        "top_k": ("Choices (T 512, E 64)", "K"), "skew": ("Skew (3072 rows, E 64, K 1)", "Zipf's exponent"),
    }  # fmt: skip
    panels = []
    for curve, (title, x_title) in titles.items():
        if curve not in found:
            continue
        xs = sorted({x for line in found[curve].values() for x in line})
        log = curve != "skew"
        place = {x: x if log else i for i, x in enumerate(xs)}
        few = xs if len(xs) <= 10 else sorted({xs[0], *xs[::-2]})
        label = lambda x: "one" if x == 99 else f"{x:g}"
        ticks = [(place[x], label(x)) for x in few]
        panel = Panel(title, x_title, ticks, "share of the roofline",
                      [(v / 100, f"{v} %") for v in (0, 25, 50, 75, 100)], log_x=log)  # fmt: skip
        for color, (name, line) in zip(COLORS, sorted(found[curve].items())):
            panel.line([(place[x], min(1.05, statistics.median(line[x]))) for x in sorted(line)], color)
            if curve == "tokens":
                panel.key(name, color)
        panels.append(panel)
    if panels:
        picture("scaling", page(panels, 2))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--peers")
    parser.add_argument("--scaling")
    asked = parser.parse_args()
    if asked.peers:
        document = json.loads(pathlib.Path(asked.peers).read_text(encoding="utf-8"))
        peers_tables(document)
        if feed_forwards(document, False):
            roofline(document)
    if asked.scaling:
        scaling(json.loads(pathlib.Path(asked.scaling).read_text(encoding="utf-8")))


if __name__ == "__main__":
    main()
