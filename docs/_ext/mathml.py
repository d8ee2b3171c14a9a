"""Formulae as MathML."""

import re
from typing import Any

from docutils import nodes
from latex2mathml.converter import convert
from sphinx.util.logging import getLogger

NAMED = re.compile(r"(<mi>(?:log|exp|max|min|det)</mi>)(?!<mo)")  # which stand apart from what they are taken of


def mathml(formula: str, node: Any, display: str = "inline") -> str:
    made = NAMED.sub(r'\1<mspace width="0.17em" />', convert(formula, display=display))
    if left := re.search(r"\\[a-zA-Z]+", re.sub(r"<annotation.*?</annotation>", "", made)):
        getLogger(__name__).warning("no MathML for %s", left[0], location=node)
    return made


def inline(self: Any, node: Any) -> None:
    self.body.append(mathml(node.astext(), node))
    raise nodes.SkipNode


def block(self: Any, node: Any) -> None:
    style = "text-align: center; margin: 1em 0; overflow-x: auto; overflow-y: hidden"
    self.body.append(f'<div style="{style}">{mathml(node.astext(), node, "block")}</div>')
    raise nodes.SkipNode


def setup(app: Any) -> dict[str, bool]:
    app.add_html_math_renderer("mathml", (inline, None), (block, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
