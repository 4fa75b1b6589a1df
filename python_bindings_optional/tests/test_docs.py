"""Every ```python block of the docs runs, each in a namespace of its own."""

import importlib.util
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", ROOT / "python_bindings_optional/README.md", *ROOT.glob("docs/**/*.md")]


def blocks():
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for block in re.finditer(r"^```python\n(.*?)^```", text, re.M | re.S):
            line = text.count("\n", 0, block.start(1)) + 1
            name = f"{page.relative_to(ROOT)}:{line}"
            # The errors of a block name the page and its line.
            yield pytest.param("\n" * (line - 1) + block[1], str(page), id=name)


@pytest.mark.parametrize("code, page", list(blocks()))
def test_block(code, page):
    for module in ("torch", "transformers"):
        if re.search(rf"^(import|from) {module}\b", code, re.M) and not importlib.util.find_spec(module):
            pytest.skip(f"{module} is not installed")
    if "shunt.torch" in code and not importlib.util.find_spec("torch"):
        pytest.skip("torch is not installed")
    exec(compile(code, page, "exec"), {"__name__": "block"})


def test_the_page_has_blocks():
    assert sum("put_shunt_under_your_model" in block.id for block in blocks()) >= 3
