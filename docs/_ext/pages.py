"""Pages as the book has them: a notebook to download for each chapter, and links to files that lie elsewhere in it."""

from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.util.logging import getLogger

CHAPTERS = "book/"
ELSEWHERE = {"../benchmarks/results/": "results/", "../examples/stories/README.md": "results/stories.md"}
KEPT = (".csv", ".png")  # files, which are copied as they are


def adapt(app: Any, name: str, source: list[str]) -> None:
    """Links as the pages under docs/ have them in the repository, to what includes these files here."""
    for there, here in ELSEWHERE.items():
        parts = source[0].split("](" + there)
        source[0] = parts[0] + "".join(
            "](" + (there if part.partition(")")[0].endswith(KEPT) else here) + part for part in parts[1:]
        )
    if name.startswith(CHAPTERS) and name != CHAPTERS + "index" and app.config.nb_execution_mode != "off":
        head, _, rest = source[0].partition("\n# ")
        title, _, rest = rest.partition("\n")
        link = f"{{nb-download}}`Download this chapter as a notebook <{Path(name).name}.ipynb>`"
        source[0] = f"{head}\n# {title}\n\n{link}\n{rest}"


def look(app: Any, page: Any, name: str) -> None:
    """A figure without a picture shows as its name: `Figure` of matplotlib where it was not pyplot that made it."""
    for output in page.findall(nodes.literal_block):
        if output.astext().startswith("<Figure size"):
            getLogger(__name__).warning("a cell ends in a figure that a notebook cannot show", location=output)


def setup(app: Any) -> dict[str, bool]:
    app.connect("source-read", adapt)
    app.connect("doctree-resolved", look)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
