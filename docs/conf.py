"""Sphinx's configuration: `make docs` builds the site from this repository, without the network."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "_ext"))
sys.path.insert(0, str(Path(__file__).parent.parent))

import inventories

from repro import __version__

project = "repro"
author = "the developers of repro"
copyright = "the developers of repro, MIT licence"
version = release = __version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.intersphinx",
    "sphinx.ext.napoleon",
    "equations",
    "mathml",
    "site_pages",
]
myst_enable_extensions = ["dollarmath", "attrs_inline", "colon_fence"]
myst_heading_anchors = 3
exclude_patterns = ["_build", "_ext", "generated/_*"]
nitpicky = False
intersphinx_mapping = inventories.write(Path(__file__).parent / "generated" / "inventories")

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_class_signature = "mixed"
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_rtype = False
napoleon_custom_sections = [("Source", "notes_style")]
python_maximum_signature_line_length = 100

html_theme = "furo"
html_title = "repro"
html_static_path = ["_static"]
html_css_files = ["results.css", "site.css"]
html_js_files = [("results.js", {"defer": "defer"})]
html_math_renderer = "mathml"
html_copy_source = False
html_show_sourcelink = False
html_theme_options = {"navigation_with_keys": True}
