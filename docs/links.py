#!/usr/bin/env python3
"""Links that lead nowhere, in the repository's pages and in the pages that Doxygen made.

  docs/links.py [FOLDER]      FOLDER: the produced pages (build/docs/html). Exit 1 where a link is dead.
"""
import html.parser
import pathlib
import re
import subprocess
import sys
import urllib.parse

ROOT = pathlib.Path(__file__).resolve().parents[1]


def is_fence(line):
    return line.lstrip().startswith("```")


def lines_of(path):
    """(index, line) of a page, without its blocks of code."""
    inside = False
    for at, line in enumerate(path.read_text().split("\n")):
        if is_fence(line):
            inside = not inside
        elif not inside:
            yield at, line


def headings(path):
    return [(at, line.lstrip("#").strip()) for at, line in lines_of(path) if re.match(r"#{1,6} ", line)]


def anchors(path):
    """The anchor that GitHub gives each heading, in order."""
    seen, out = {}, []
    for _, text in headings(path):
        text = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", text).replace("`", "").lower()
        name = re.sub(r"[^\w\- ]", "", text).replace(" ", "-")
        count = seen.get(name, 0)
        seen[name] = count + 1
        out.append(f"{name}-{count}" if count else name)
    return out


def page_name(path):
    """Doxygen's name for a page, by its path from the root: docs/stages/route.md is guide_stages_route."""
    if str(path) == "README.md":
        return "mainpage"
    return "guide_" + re.sub(r"\W", "_", str(path.with_suffix("")).removeprefix("docs/"))


def dead_in_page(path):
    for at, line in lines_of(path):
        for target in re.findall(r"\]\(([^)\s]+)\)", re.sub(r"`[^`]*`", "", line)):
            if re.match(r"[a-z]+:", target):
                continue
            file, _, anchor = target.partition("#")
            end = (path.parent / urllib.parse.unquote(file)).resolve() if file else path
            if not end.exists():
                yield f"{path.relative_to(ROOT)}:{at + 1}: there is no {target}"
            elif anchor and (end.suffix != ".md" or anchor not in anchors(end)):
                yield f"{path.relative_to(ROOT)}:{at + 1}: {target}: no heading has this anchor"


class Page(html.parser.HTMLParser):
    def __init__(self, path):
        super().__init__()
        self.names, self.links = set(), []
        self.feed(path.read_text())

    def handle_starttag(self, tag, attributes):
        for key, value in attributes:
            if key in ("id", "name") and value:
                self.names.add(value)
            elif key in ("href", "src") and value:
                self.links.append(value)


def dead_in_site(folder):
    pages = {path.resolve(): Page(path) for path in sorted(folder.rglob("*.html"))}
    for path, page in pages.items():
        for target in page.links:
            # Doxygen heads a class with this link where all nested classes are private and not listed.
            if re.match(r"[a-z]+:|//", target) or target == "#nested-classes":
                continue
            file, _, anchor = target.partition("#")
            end = (path.parent / urllib.parse.unquote(file)).resolve() if file else path
            if not end.exists():
                yield f"{path.name}: there is no {target}"
            elif anchor and end in pages and urllib.parse.unquote(anchor) not in pages[end].names:
                yield f"{path.name}: {target}: no such place"


def main():
    listed = subprocess.run(["git", "-C", ROOT, "ls-files", "-co", "--exclude-standard", "*.md"], check=True,
                            capture_output=True, text=True)  # fmt: skip
    dead = [each for name in listed.stdout.split() for each in dead_in_page(ROOT / name)]
    if len(sys.argv) > 1:
        dead += sorted(set(dead_in_site(pathlib.Path(sys.argv[1]))))
    print("\n".join(dead), end="\n" if dead else "")
    return 1 if dead else 0


if __name__ == "__main__":
    sys.exit(main())
