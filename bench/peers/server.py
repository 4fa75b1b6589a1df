"""Google Benchmark's JSON of bench/run --peers as one Markdown table: see bench/peers/server."""

import datetime
import json
import re
import sys

FLAGS = r"avx2|avx_vnni|avx512\w*|amx_\w+"


def flags():
    try:
        with open("/proc/cpuinfo") as file:
            found = re.search(r"^flags\s*:(.*)$", file.read(), re.M)
    except OSError:
        return ""
    return " ".join(sorted(re.findall(rf"\b(?:{FLAGS})\b", found.group(1)))) if found else ""


def milliseconds(benchmark, which):
    return benchmark[which] * {"ns": 1e-6, "us": 1e-3, "ms": 1.0, "s": 1e3}[benchmark["time_unit"]]


def digits(value):
    return f"{value:.0f}" if value >= 99.5 else f"{value:.3g}"


def time_of(benchmark):
    if benchmark is None:
        return "–"
    times = " · ".join(digits(milliseconds(benchmark, w)) for w in ("least", "real_time", "most"))
    share = benchmark.get("of_roofline")
    return times if share is None else f"{times} ({100 * share:.0f} %)"


def best_of(others):
    """The library that was fastest beside Shunt, by its median ratio."""
    if not others:
        return "–"
    name, one = min(others, key=lambda each: each[1]["to_shunt"])
    return f"{one['to_shunt']:.2f} ({one['to_shunt_least']:.2f} to {one['to_shunt_most']:.2f}) {name}"


def rows_of(benchmarks):
    """Work → {name of a contestant: its figures}, each library's part apart: Shunt runs beside each of them."""
    works = {}
    for b in benchmarks:
        found = re.fullmatch(r"feed_forward/(E\w+)/(\w+)/T(\d+)/threads(\d+)/(\w+)/(\w+)", b["name"])
        if found is None or b.get("error_occurred"):
            continue
        shape, kind, tokens, threads, library, who = found.groups()
        works.setdefault((shape, kind, int(tokens), threads), {}).setdefault(library, {})[who] = b
    return works


def print_row(work, libraries):
    shape, kind, tokens, threads = work
    # Shunt's own time is that of the part in which it had the quietest machine.
    plain, packed = (min((part[name] for part in libraries.values() if name in part),
                         key=lambda b: b["real_time"], default=None) for name in ("shunt", "shunt_packed"))
    others = {False: [], True: []}
    for library, part in libraries.items():
        for who, b in part.items():
            if not who.startswith("shunt") and "to_shunt" in b:
                others[who.endswith("_packed")].append((library, b))
    print(f"| {shape.replace('_', ' ')}, {kind}, T={tokens}, {threads} threads | {time_of(plain)} | "
          f"{time_of(packed)} | {best_of(others[False])} | {best_of(others[True])} |")


def main():
    with open(sys.argv[1]) as file:
        document = json.load(file)
    context = document["context"]
    print(f"{datetime.date.today()} · {context.get('processor', '?')} · {context['num_cpus']} cores · {flags()}")
    print(f"isa {context.get('isa', '?')} ({context.get('isa_reason', '')}) · " + " · ".join(
        f"{v} {'GFLOP/s FMA' if k.startswith('fma') else 'GB/s read'} ({k.rsplit('_threads', 1)[1]} threads)"
        for k, v in context.items() if k.startswith(("fma_gflops_", "read_gbytes_"))))
    print()
    print("| work | Shunt plain, ms (of the roofline) | Shunt packed | best other, plain: its time / Shunt's | packed |")
    print("|---|---|---|---|---|")
    for work, libraries in sorted(rows_of(document["benchmarks"]).items(),
                                  key=lambda item: (item[0][0], item[0][1], -item[0][2])):
        print_row(work, libraries)


if __name__ == "__main__":
    main()
