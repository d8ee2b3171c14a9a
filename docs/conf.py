"""How the book is built: `make docs`. Chapters are in book/, named NN-name.md; what else there is, index.md lists."""

import os
import sys
from pathlib import Path

import pyrovae

os.environ.setdefault("PYTHONWARNINGS", "ignore:IProgress not found")  # of tqdm, in kernels without ipywidgets
sys.path.insert(0, str(Path(__file__).parent / "_ext"))

project = "pyrovae"
author = copyright = "The pyrovae developers"
version = release = pyrovae.__version__

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "docstrings", "mathml", "pages"]
exclude_patterns = ["_build", "_ext", "_static"]
html_theme = "furo"
html_title = "pyrovae"
html_theme_options = {"navigation_with_keys": True}
html_static_path = ["_static"]
html_css_files = ["pages.css"]
pygments_style = "friendly"
pygments_dark_style = "monokai"

# Formulae are MathML, which browsers show themselves; nothing is fetched from another host.
html_math_renderer = "mathml"
nb_ipywidgets_js: dict = {}
myst_enable_extensions = ["dollarmath", "amsmath", "colon_fence", "deflist"]
myst_update_mathjax = False
myst_heading_anchors = 3

# Cells run when a page is built for the first time, and again where they changed.
nb_execution_mode = "cache"
nb_execution_cache_path = str(Path(__file__).parent / "_build" / "cells")
nb_execution_raise_on_error = True
nb_execution_timeout = 300
if "PYROVAE_CELLS" in os.environ:  # a smoke build: pages of this name alone, such as 01-*.md, run their cells
    here = Path(__file__).parent
    others = (p for p in here.rglob("*.md") if not p.match(os.environ["PYROVAE_CELLS"]))
    nb_execution_excludepatterns = [str(p.relative_to(here)) for p in others]
nb_merge_streams = True
nb_render_image_options = {"alt": "the figure of this cell"}
nb_code_prompt_show = "Show the answer"
nb_code_prompt_hide = "Hide the answer"

# Docstrings are in the style of Google, with `code` in single backticks.
default_role = "code"
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_default_options = {"members": True, "imported-members": True, "show-inheritance": False}
napoleon_custom_sections = [("Reference", "Notes"), ("References", "Notes")]
python_use_unqualified_type_names = True
