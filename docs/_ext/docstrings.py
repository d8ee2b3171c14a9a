"""Docstrings as reStructuredText: what is meant as text is, and a formula that is indented is shown as it stands."""

import re
from typing import Any

SECTIONS = re.compile(r"^(Args|Attributes|Raises|Returns|Yields):$")


def plain(line: str) -> str:
    """Outside of `code`: stars, bars and trailing underscores as themselves."""
    parts = re.split(r"(`[^`]*`)", line)
    parts[::2] = [re.sub(r"(\w)_(?!\w)", r"\1\\_", re.sub(r"([*|])", r"\\\1", part)) for part in parts[::2]]
    parts[1::2] = [f"`{part}`" for part in parts[1::2]]
    return "".join(parts)


def convert(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Formulae and commands as literal blocks, the rest as plain text."""
    made: list[str] = []
    section = literal = doctest = False
    for line in lines:
        indent = len(line) - len(line.lstrip())
        if not line.strip():
            doctest = False
            made.append("")
            continue
        if line.startswith(">>>"):
            doctest = True
        if not indent and not doctest:
            section = bool(SECTIONS.match(line))
            references = re.match(r"(References?): (.*)", line)
            if references:
                line = references[2]
                made += [".. rubric:: " + references[1], ""]
        if doctest:
            made.append(line)
        elif indent >= 4 and not section:
            if not literal:
                made += ["::", ""]
            literal = True
            made.append(line)
            continue
        else:  # lists inside of an argument's text run on
            made.append(" " * min(indent, 8) + plain(line.lstrip()))
        literal = False
    # of a property napoleon takes what is before a colon in the first line for a type: an empty comment goes before it
    lines[:] = ["..", "", *made] if what == "property" else made


def setup(app: Any) -> dict[str, bool]:
    """Before napoleon reads the sections."""
    app.connect("autodoc-process-docstring", convert, priority=100)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
