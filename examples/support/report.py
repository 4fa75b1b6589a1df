#!/usr/bin/env python3
"""Makes report.html, with its figures as SVG inside, from the log of train_lm:

    report.py LOG.json [REPORT.html]

Needs matplotlib (Debian: python3-matplotlib); without it, says so and ends with exit code 3.
"""
import html
import io
import json
import sys

try:
    import matplotlib

    matplotlib.use("svg")
    import matplotlib.pyplot as plt
except ImportError:
    plt = None

COLORS = {"moe": "#1b6ca8", "dense": "#d1602f"}
BITS = 1.4426950408889634  # nats to bits


def smooth(values, weight=0.9):
    """Exponential mean, corrected for its start."""
    result, mean, share = [], 0.0, 0.0
    for value in values:
        mean = weight * mean + (1 - weight) * value
        share = weight * share + (1 - weight)
        result.append(mean / share)
    return result


def svg(figure):
    out = io.StringIO()
    figure.savefig(out, format="svg", bbox_inches="tight")
    plt.close(figure)
    text = out.getvalue()
    return text[text.index("<svg"):]


def loss_curves(log):
    figure, axes = plt.subplots(figsize=(8, 4))
    for model in log["models"]:
        history, color = model["history"], COLORS.get(model["name"], "#555555")
        bits = [value * BITS for value in history["loss"]]
        axes.plot(history["step"], bits, color=color, alpha=0.2, linewidth=0.8)
        axes.plot(history["step"], smooth(bits), color=color, linewidth=1.4,
                  label=f"{model['name']}, training (smoothed)")
        axes.plot(history["eval_step"], history["eval_bits"], "o--", color=color, markersize=4,
                  linewidth=1, label=f"{model['name']}, held-out")
    finals = [v for m in log["models"] for v in m["history"]["eval_bits"]]
    if finals:
        axes.set_ylim(min(finals) * 0.85, min(8.2, max(finals) * 1.05))
    axes.set_xlabel("step")
    axes.set_ylabel("bits per byte")
    axes.grid(alpha=0.25)
    if log["models"]:
        axes.legend(frameon=False)
    return svg(figure)


def expert_load(model):
    """One strip per layer: experts from bottom to top, time from left to right, color the load."""
    history = model["history"]
    layers, steps = model["layers"], history["load_step"]
    if not steps:
        return None
    columns = min(layers, 4)
    rows = (layers + columns - 1) // columns
    figure, panels = plt.subplots(rows, columns, squeeze=False, sharex=True, sharey=True,
                                  figsize=(2.6 * columns + 1.2, 2.2 * rows + 0.6),
                                  layout="constrained")
    image = None
    for layer in range(rows * columns):
        axes = panels[layer // columns][layer % columns]
        if layer >= layers:
            axes.axis("off")
            continue
        experts = len(history["load"][0][layer])
        share = [[sample[layer][e] * experts for sample in history["load"]]
                 for e in range(experts)]
        image = axes.imshow(share, aspect="auto", origin="lower", cmap="viridis", vmin=0, vmax=2,
                            interpolation="nearest",
                            extent=(0, steps[-1], -0.5, experts - 0.5))
        axes.set_title(f"layer {layer}", fontsize=9)
    for row in panels:
        row[0].set_ylabel("expert")
    for axes in panels[-1]:
        axes.set_xlabel("step")
    figure.colorbar(image, ax=panels, label="load (1 = its fair share)", shrink=0.8)
    return svg(figure)


def experts_by_domain(model, domains):
    heat = model["experts_by_domain"]
    if not heat:
        return None
    layers = len(heat)
    columns = min(layers, 4)
    rows = (layers + columns - 1) // columns
    experts = len(heat[0][0])
    figure, panels = plt.subplots(rows, columns, squeeze=False, sharex=True, sharey=True,
                                  figsize=(2.4 * columns + 1.2,
                                           (0.9 + min(0.2 * experts, 5)) * rows + 0.4),
                                  layout="constrained")
    top = max(value * experts for layer in heat for row in layer for value in row)
    image = None
    for layer in range(rows * columns):
        axes = panels[layer // columns][layer % columns]
        if layer >= layers:
            axes.axis("off")
            continue
        share = [[heat[layer][d][e] * experts for d in range(len(domains))]
                 for e in range(experts)]
        image = axes.imshow(share, aspect="auto", origin="lower", cmap="magma", vmin=0,
                            vmax=max(top, 2), interpolation="nearest")
        axes.set_xticks(range(len(domains)), domains, rotation=60, fontsize=8)
        axes.set_title(f"layer {layer}", fontsize=9)
    for row in panels:
        row[0].set_ylabel("expert")
    figure.colorbar(image, ax=panels, label="share of the domain's slots × experts", shrink=0.8)
    return svg(figure)


def time_breakdown(log):
    models = [m for m in log["models"] if m["time"]]
    if not models:
        return None
    stages = []
    for model in models:
        stages += [name for name in model["time"] if name not in stages]
    figure, axes = plt.subplots(figsize=(8, 0.9 + 0.6 * len(models)))
    palette = plt.get_cmap("tab20").colors
    for row, model in enumerate(models):
        left, steps = 0.0, max(model["steps_timed"], 1)
        for stage_index, stage in enumerate(stages):
            wide = 1000 * model["time"].get(stage, 0.0) / steps
            axes.barh(row, wide, left=left, color=palette[stage_index % 20], edgecolor="white",
                      label=stage if row == 0 else None)
            left += wide
    axes.set_yticks(range(len(models)), [m["name"] for m in models])
    axes.invert_yaxis()
    axes.set_xlabel("milliseconds per training step")
    handles, labels = [], []
    for stage_index, stage in enumerate(stages):
        handles.append(plt.Rectangle((0, 0), 1, 1, color=palette[stage_index % 20]))
        labels.append(stage)
    axes.legend(handles, labels, ncol=5, fontsize=8, frameon=False, loc="upper center",
                bbox_to_anchor=(0.5, -0.35 if len(models) > 1 else -0.6))
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    return svg(figure)


STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem;
       color: #222; background: #fff; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin-top: 2.2rem; }
table { border-collapse: collapse; } td, th { padding: .25rem .8rem; border-bottom: 1px solid #ddd; }
td + td, th + th { text-align: right; } th { text-align: left; }
svg { max-width: 100%; height: auto; } p.note { color: #555; font-size: .9rem; }
"""


def table(rows):
    lines = ["<table>"]
    for index, row in enumerate(rows):
        cell = "th" if index == 0 else "td"
        lines.append("<tr>" + "".join(f"<{cell}>{html.escape(str(c))}</{cell}>" for c in row)
                     + "</tr>")
    return "\n".join(lines + ["</table>"])


def sections(log):
    """(title, explanation, html) of each part of the page."""
    domains = [d["name"] for d in log["corpus"]["domains"]]
    yield "Result", "", table(log["table"])
    yield ("Loss", "The same bytes in the same order for both models. Points: held-out documents.",
           loss_curves(log))
    for model in log["models"]:
        if model["experts"] <= 1:
            continue
        part = expert_load(model)
        if part:
            yield ("Expert load over time",
                   "Each row of a panel is an expert; bright means more than its fair share.", part)
        part = experts_by_domain(model, domains)
        if part:
            yield ("Which expert reads what",
                   "Held-out text of each domain: the share of its slots that each expert got, in "
                   "units of the fair share. A bright cell is an expert that knows a domain.", part)
    part = time_breakdown(log)
    if part:
        yield "Where the time goes", "", part
    rows = [["domain", "from", "training bytes", "held-out bytes"]
            + [f"bits/byte, {m['name']}" for m in log["models"]]]
    for d in log["corpus"]["domains"]:
        rows.append([d["name"], d["place"], f"{d['train_bytes']:,}", f"{d['held_out_bytes']:,}"]
                    + [f"{m['held_out']['per_domain'].get(d['name'], float('nan')):.3f}"
                       for m in log["models"]])
    yield "Text", " ".join(log["corpus"]["notes"]), table(rows)
    yield ("Settings", "", table([["setting", "value"]]
                                 + [[k, v] for k, v in sorted(log["settings"].items())]))


def page(log):
    parts = []
    for title, note, body in sections(log):
        note = f'<p class="note">{html.escape(note)}</p>' if note else ""
        parts.append(f"<h2>{html.escape(title)}</h2>\n{note}\n{body}")
    machine = ", ".join(f"{key} {value}" for key, value in log["machine"].items())
    return f"""<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>Shunt: train_lm</title>
<style>{STYLE}</style></head><body>
<h1>A byte-level language model with {log['settings']['experts']} experts, and a dense one</h1>
<p class="note">{html.escape(machine)}</p>
{chr(10).join(parts)}
</body></html>
"""


def main():
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__.strip())
    if plt is None:
        print("There is no matplotlib for this python3 (Debian: python3-matplotlib): no report is "
              f"made; the figures' numbers are in {sys.argv[1]}")
        sys.exit(3)
    plt.rcParams.update({"svg.fonttype": "none", "font.size": 10, "svg.hashsalt": "shunt"})
    with open(sys.argv[1], encoding="utf-8") as file:
        log = json.load(file)
    target = sys.argv[2] if len(sys.argv) == 3 else "report.html"
    with open(target, "w", encoding="utf-8") as file:
        file.write(page(log))


if __name__ == "__main__":
    main()
