"""Prints Google Benchmark's JSON as a table, or merges several files into one.

table.py FILE...                 prints
table.py --merge OUT FILE...     writes the first file's context with all benchmarks
"""

import json
import sys

COLUMNS = [
    ("time", lambda b: duration(b["real_time"], b["time_unit"])),
    ("least", lambda b: least_or_most(b, "least")),
    ("most", lambda b: least_or_most(b, "most")),
    ("GFLOP/s", lambda b: figure(b.get("gflops"))),
    ("GB/s", lambda b: figure(b.get("bytes_per_second"), 1e-9)),
    ("of ceiling", lambda b: percent(b.get("of_ceiling"))),
    ("of roofline", lambda b: percent(b.get("of_roofline"))),
    ("times Shunt's", lambda b: ratio(b)),
    ("more", lambda b: other_counters(b)),
]
STANDARD = {
    "name", "family_index", "per_family_instance_index", "run_name", "run_type", "repetitions",
    "repetition_index", "threads", "iterations", "real_time", "cpu_time", "time_unit", "label",
    "gflops", "bytes_per_second", "of_ceiling", "of_roofline", "error_occurred", "error_message",
    "aggregate_name", "aggregate_unit", "items_per_second",
    "least", "most", "rounds", "to_shunt", "to_shunt_least", "to_shunt_most",
}


def duration(value, unit):
    seconds = value * {"ns": 1e-9, "us": 1e-6, "ms": 1e-3, "s": 1}[unit]
    for factor, name in ((1, "s"), (1e-3, "ms"), (1e-6, "µs")):
        if seconds >= factor:
            return f"{seconds / factor:.3g} {name}" if seconds < 1000 * factor else f"{seconds:.0f} s"
    return f"{seconds * 1e9:.3g} ns"


def least_or_most(benchmark, which):
    return duration(benchmark[which], benchmark["time_unit"]) if which in benchmark else ""


def ratio(benchmark):
    if "to_shunt" not in benchmark:
        return ""
    return "{to_shunt:.2f} ({to_shunt_least:.2f} to {to_shunt_most:.2f})".format(**benchmark)


def figure(value, factor=1.0):
    return "" if value is None else f"{value * factor:.1f}"


def percent(value):
    return "" if value is None else f"{100 * value:.0f} %"


def other_counters(benchmark):
    shown = [f"{k} {v:.3g}" for k, v in benchmark.items()
             if k not in STANDARD and isinstance(v, (int, float))]
    if benchmark.get("label"):
        shown.insert(0, benchmark["label"])
    return ", ".join(shown)


def print_table(document):
    context = document["context"]
    machine = [context.get("processor", "?"), f"{context['num_cpus']} cores",
               f"isa {context.get('isa', '?')}"]
    if context.get("isa_reason"):
        machine.append(context["isa_reason"])
    for key, value in context.items():
        if key.startswith(("fma_gflops_", "read_gbytes_")):
            kind = "GFLOP/s FMA" if key.startswith("fma") else "GB/s read"
            machine.append(f"{value} {kind} ({key.rsplit('_', 1)[1].replace('threads', 'threads ')})")
    print(" · ".join(machine))
    rows = [["benchmark"] + [title for title, _ in COLUMNS]]
    for benchmark in document["benchmarks"]:
        if benchmark.get("error_occurred"):
            rows.append([benchmark["name"], "WRONG: " + benchmark["error_message"]])
        else:
            rows.append([benchmark["name"]] + [show(benchmark) for _, show in COLUMNS])
    if len(rows) == 1:
        return
    used = [i for i in range(len(rows[0])) if any(len(r) > i and r[i] for r in rows[1:])]
    width = {i: max(len(r[i]) for r in rows if len(r) == len(rows[0])) for i in used}
    last = len(rows[0]) - 1
    for row in rows:
        line = [row[0].ljust(width[0])]
        for i in used[1:]:
            if i < len(row):
                plain = i == last or len(row) <= last
                line.append(row[i] if plain else row[i].rjust(width[i]))
        print("  ".join(line).rstrip())
    print()


def main(arguments):
    if arguments[:1] == ["--merge"]:
        target, files = arguments[1], arguments[2:]
    else:
        target, files = None, arguments
    documents = []
    for name in files:
        with open(name, encoding="utf-8") as file:
            documents.append(json.load(file))
    if target is None:
        for document in documents:
            print_table(document)
        return
    merged = documents[0]
    for document in documents[1:]:
        merged["benchmarks"] += document["benchmarks"]
    with open(target, "w", encoding="utf-8") as file:
        json.dump(merged, file, indent=2)
        file.write("\n")


main(sys.argv[1:])
