"""The table of kernels: made from what `ptxas -v` said, or held against it.

    table.py TABLE NVCC-VERSION [--update] MODULE.ARCHITECTURE.ptxas...

A cell is a thread's registers, and behind a plus the bytes that it spills.
"""
import re
import subprocess
import sys
from pathlib import Path

ORDER = ["sm_80", "sm_86", "sm_89", "sm_90a", "sm_100", "sm_120"]
ENTRY = re.compile(r"Compiling entry function '(\S+)'")
SPILL = re.compile(r"(\d+) bytes spill stores, (\d+) bytes spill loads")
USED = re.compile(r"Used (\d+) registers")


def readable(names):
    """Mangled → what a person would call the kernel: its name and template arguments."""
    text = subprocess.run(["c++filt"], input="\n".join(names), capture_output=True, text=True, check=True)
    short = []
    for name in text.stdout.splitlines():
        name = re.sub(r"^void ", "", name)
        depth, end = 0, len(name)
        for i, c in enumerate(name):  # the parameters begin at the first ( outside of <>
            depth += (c == "<") - (c == ">" and name[i - 1] != "-")
            if c == "(" and depth == 0:
                end = i
                break
        name = re.sub(r"\bbuilt_for_\w+::|\bshunt::(cuda::|detail::|nn::)*", "", name[:end])
        short.append(name.replace("(space)1", "device"))
    return dict(zip(names, short))


def read(paths):
    """{(module, kernel): {architecture: (registers, spilled bytes)}}"""
    found = {}
    for path in paths:
        module, architecture, _ = path.name.split(".")
        name, spilled = None, 0
        for line in path.read_text().splitlines():
            if m := ENTRY.search(line):
                name = m[1]
            elif (m := SPILL.search(line)) and name:
                spilled = max(int(m[1]), int(m[2]))
            elif (m := USED.search(line)) and name:
                found.setdefault((module, name), {})[architecture] = (int(m[1]), spilled)
                name, spilled = None, 0
    names = readable(sorted({name for _, name in found}))
    kernels = {}
    for (module, mangled), cells in found.items():
        # Of kernels that are called alike (one function for several types of argument) the largest.
        row = kernels.setdefault((module, names[mangled]), {})
        for architecture, cell in cells.items():
            row[architecture] = max(row.get(architecture, (0, 0)), cell)
    return kernels


def load(table):
    kernels, module, version, columns = {}, None, None, []
    for line in table.read_text().splitlines() if table.exists() else []:
        if m := re.match(r"# nvcc (\S+)", line):
            version = m[1]
        elif line.startswith("sm_"):
            columns = line.split()[:-1]
        elif m := re.match(r"\[(\w+)\]", line):
            module = m[1]
        elif line and not line.startswith("#"):
            cells, name = line.split(None, len(columns))[:-1], line.split(None, len(columns))[-1]
            row = kernels[(module, name)] = {}
            for column, cell in zip(columns, cells):
                if cell != "-":
                    registers, _, spilled = cell.partition("+")
                    row[column] = (int(registers), int(spilled or 0))
    return kernels, version


def save(table, version, kernels):
    lines = [
        f"# nvcc {version} -O2: registers of a thread, +bytes spilled. tests/cuda/matrix/check --update",
        "".join(f"{c:8}" for c in ORDER) + "kernel",
    ]
    module = None
    for (its, name), row in sorted(kernels.items()):
        if its != module:
            module = its
            lines += ["", f"[{module}]"]
        cells = [f"{r}+{s}" if s else str(r) for r, s in (row.get(c, (0, 0)) for c in ORDER)]
        lines.append("".join(f"{c if c != '0' else '-':8}" for c in cells) + name)
    table.write_text("\n".join(lines) + "\n")


def main():
    table, version = Path(sys.argv[1]), sys.argv[2]
    update = "--update" in sys.argv
    kernels = read([Path(p) for p in sys.argv[3:] if p != "--update"])
    known, made_with = load(table)
    modules = {module for module, _ in kernels}
    if update:
        seen = {architecture for row in kernels.values() for architecture in row}
        for key, row in known.items() if version == made_with else ():
            if key[0] not in modules:
                kernels[key] = row
            elif key in kernels:
                kernels[key] |= {a: cell for a, cell in row.items() if a not in seen}
        save(table, version, kernels)
        print(f"{table.name}: {len(kernels)} kernels, nvcc {version}")
        return 0
    if version != made_with:
        print(f"not run: registers against {table.name}: it is nvcc {made_with}'s, this is {version}")
        return 0
    bad, unknown, fewer = [], [], 0
    for (module, name), row in sorted(kernels.items()):
        for architecture, (registers, spilled) in sorted(row.items()):
            now = f"{module}: {name} on {architecture}: {registers} registers, {spilled} bytes spilled"
            was = known.get((module, name), {}).get(architecture)
            if was is None:
                (bad if spilled else unknown).append(now + "; the table does not have it")
            elif registers > was[0] or spilled > was[1]:
                bad.append(f"{now}; the table says {was[0]} and {was[1]}")
            else:
                fewer += registers < was[0] or spilled < was[1]
    gone = [f"{module}: {name}" for module, name in known
            if module in modules and (module, name) not in kernels]
    for line in bad:
        print("FAILED:", line)
    for line in unknown[:10]:
        print(line)
    if unknown or gone or fewer:
        print(f"{len(unknown)} new, {fewer} smaller, {len(gone)} gone: --update writes the table anew")
    print(f"{len(kernels)} kernels held against {table.name}")
    return 1 if bad else 0


sys.exit(main())
