#!/usr/bin/env python3
"""Whether docs/options.md names every SHUNT_* setting that the tree reads, and none that it does not.

A setting is what a user may set: an environment variable, a CMake cache variable, a macro that a source
asks for. Exit 1, with the place of each, where the page and the tree differ.
"""
import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[1]
PAGE = "docs/options.md"
READS = re.compile("|".join([
    r"""getenv\("(SHUNT_\w+)""",
    r"""environ(?:\.get\(|\[)["'](SHUNT_\w+)""",
    r"\$\{(SHUNT_\w+)(?::?-)",
    r"\$ENV\{(SHUNT_\w+)",
    r"\boption\((SHUNT_\w+)",
    r"\bset\((SHUNT_\w+) [^)\n]*\bCACHE\b",
    r"\bfind_(?:program|path|library)\((SHUNT_\w+)",
    r"# *if.*?\b(SHUNT_\w+)",
    r"# *elif.*?\b(SHUNT_\w+)",
]))  # fmt: skip

DEFINES = re.compile(r"# *define (SHUNT_\w+)")  # in a header, where it reaches whoever includes it


def main():
    listed = subprocess.run(["git", "-C", ROOT, "ls-files"], check=True, capture_output=True, text=True)
    page = set(re.findall(r"SHUNT_\w+", (ROOT / PAGE).read_text()))
    known, missing = set(), []
    for name in listed.stdout.split():
        if name.endswith(".md") or name.startswith("docs/") or not (ROOT / name).is_file():
            continue
        text = (ROOT / name).read_text(errors="replace")
        known.update(re.findall(r"SHUNT_\w+", text))
        for at, line in enumerate(text.split("\n")):
            found = {each for match in READS.finditer(line) for each in match.groups() if each}
            if name.startswith("include/"):
                found.update(DEFINES.findall(line))
            missing += [f"{name}:{at + 1}: {each} is not in {PAGE}" for each in sorted(found - page)]
    gone = [f"{PAGE}: nothing reads {each}" for each in sorted(page - known)]
    print("\n".join(missing + gone), end="\n" if missing or gone else "")
    return 1 if missing or gone else 0


if __name__ == "__main__":
    sys.exit(main())
