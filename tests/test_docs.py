"""The book: chapters have their parts, all public names are in the reference, Sphinx builds it without a warning."""

from __future__ import annotations

import importlib
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import pyrovae as pv

DOCS = Path(__file__).parent.parent / "docs"
CHAPTERS = sorted(DOCS.glob("book/[0-9]*.md"))
CELL = re.compile(r"^```\{code-cell\} python\n(.*?)^```$", re.M | re.S)
LINES, WIDTH = 10, 110  # of a cell; what is longer would scroll
PARTS = ("The formula", "In code", "Exercise", "Pitfalls", "Further")


@pytest.mark.parametrize("chapter", CHAPTERS, ids=lambda path: path.stem)
def test_a_chapter_has_its_parts(chapter):
    text = chapter.read_text()
    number, name = re.search(r"^# (\d+)\. (.+)$", text, re.M).groups()
    assert chapter.stem.startswith(f"{int(number):02d}-"), name
    assert tuple(re.findall(r"^## (.+)$", text, re.M)) == PARTS
    assert "$$" in text
    assert "pv.plots." in text or "subplots(" in text
    cells = CELL.findall(text)
    assert len(cells) == text.count("{code-cell}")
    for cell in cells:
        code = [line for line in cell.splitlines() if line.strip() and not line.startswith(":tags:")]
        assert len(code) <= LINES, cell
        assert max(map(len, code)) <= WIDTH, cell
        compile("\n".join(code), chapter.name, "exec")
    exercise = text[text.index("## Exercise") : text.index("## Pitfalls")]
    assert ":tags: [hide-cell]" in exercise, "the answer is folded, and runs"


def test_the_chapters_are_numbered_in_order():
    assert [int(path.stem[:2]) for path in CHAPTERS] == list(range(1, len(CHAPTERS) + 1))


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The pages, with the cells of the first chapter run: those of all take minutes."""
    folder = tmp_path_factory.mktemp("html")
    options = ["-D", f"nb_execution_cache_path={folder / 'cells'}", "-D", "suppress_warnings=myst-nb.lexer"]
    options += ["-d", str(folder / "doctrees")]
    done = subprocess.run(
        [sys.executable, "-m", "sphinx", "-W", "-q", "-b", "html", *options, str(DOCS), str(folder)],
        capture_output=True,
        text=True,
        timeout=600,
        env=os.environ | {"PYTHONPATH": str(DOCS.parent), "PYTHONWARNINGS": "ignore", "PYROVAE_CELLS": "01-*.md"},
    )
    assert not done.returncode, done.stderr
    return folder


def test_pages_fetch_nothing(built):
    for page in built.rglob("*.html"):
        tags = re.findall(r"<(?:script|link|img|iframe|source)\b[^>]*>", page.read_text())
        fetched = [tag for tag in tags if re.search(r'(?:src|href)="(?:https?:)?//', tag)]
        assert not fetched, f"{page.name}: {fetched}"


def test_links_lead_somewhere(built):
    missing = []
    for page in built.rglob("*.html"):
        for link in re.findall(r'<a\b[^>]*\bhref="([^"#?:]+)(?:#[^"]*)?"', page.read_text()):
            if not (page.parent / link).exists():
                missing.append(f"{page.relative_to(built)}: {link}")
    assert not missing


def test_every_public_name_is_in_the_reference(built):
    names = [path.stem for path in (DOCS / "reference").glob("*.md") if path.stem != "index"]
    rooms = {name: importlib.import_module(f"pyrovae.{name}") for name in names}
    rooms_of_top = {name for name in pv.__all__ if name in rooms}
    assert rooms_of_top == {n for n in pv.__all__ if type(getattr(pv, n)).__name__ == "module"}
    text = {name: (built / "reference" / f"{name}.html").read_text() for name in rooms}
    for room, module in rooms.items():
        for name in getattr(module, "__all__", ()):
            if callable(getattr(module, name)):
                assert f'id="pyrovae.{room}.{name}"' in text[room], f"{room}.{name}"
    everything = "".join(text.values())
    for name in set(pv.__all__) - rooms_of_top:
        assert re.search(rf'id="pyrovae(\.\w+)+\.{name}"', everything), name
