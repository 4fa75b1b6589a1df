"""Spills inside the main loops, from SASS: loops.py NVDISASM CUBIN...

A main loop is one around at least 16 FMAs or 4 MMAs, but not the outermost where loops nest: that one
goes over tiles. Prints each kernel that touches local memory, and where; exit 1 where a product's main
loop (gemm_...) does.
"""

import re
import subprocess
import sys

INSTRUCTION = re.compile(r"/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+\s+)?([A-Z][\w.]*)\s*(.*?);")
ENOUGH = {"FFMA": 16, "FFMA2": 8, "HMMA": 4}


def kernels(sass):
    """(mangled name, lines) of each function."""
    parts = re.split(r"^\s*\.section\s+\.text\.(\S+?),.*$", sass, flags=re.M)
    return zip(parts[1::2], parts[2::2])


def read(text):
    """The instructions as (opcode, operands), and the instruction that each label stands before."""
    code, labels = [], {}
    for line in text.splitlines():
        if label := re.match(r"^(\.L_x_\d+):", line):
            labels[label[1]] = len(code)
        elif found := INSTRUCTION.search(line):
            code.append((found[1], found[2]))
    return code, labels


def loops(code, labels):
    """(first, last) of each backward branch's range, the widest per entry."""
    ranges = {}
    for at, (opcode, operands) in enumerate(code):
        target = re.search(r"\.L_x_\d+", operands) if opcode.startswith("BRA") else None
        start = labels.get(target[0], at + 1) if target else at + 1
        if start < at:  # not the branch to itself that ends a function
            ranges[start] = max(at, ranges.get(start, 0))
    return list(ranges.items())


def main_loops(code, labels):
    def has_enough(loop):
        body = [opcode.split(".")[0] for opcode, _ in code[loop[0]:loop[1] + 1]]
        return any(body.count(kind) >= least for kind, least in ENOUGH.items())

    around = [loop for loop in loops(code, labels) if has_enough(loop)]

    def inside(loop, other):
        return other != loop and other[0] <= loop[0] and loop[1] <= other[1]

    outermost = [loop for loop in around if not any(inside(loop, other) for other in around)]
    return [loop for loop in around
            if loop not in outermost or not any(inside(other, loop) for other in around)]


def main(nvdisasm, *cubins):
    failed = False
    for cubin in cubins:
        sass = subprocess.run([nvdisasm, "-c", cubin], capture_output=True, text=True, check=True).stdout
        for name, text in kernels(sass):
            code, labels = read(text)
            main_of = main_loops(code, labels)
            local = [at for at, (opcode, _) in enumerate(code) if opcode.split(".")[0] in ("LDL", "STL")]
            within = [at for at in local if any(a <= at <= b for a, b in main_of)]
            if local and main_of:
                print(f"{cubin.rsplit('/', 1)[-1]}: {len(within)} of {len(local)} local accesses in "
                      f"{len(main_of)} main loops: {name[:100]}")
            failed |= bool(within) and "gemm_" in name
    sys.exit(failed)


main(*sys.argv[1:])
