"""Sphinx: ``make docs`` builds the site into docs/_build."""

import importlib.metadata

project = "handclasp"
release = importlib.metadata.version("handclasp")
copyright = "the handclasp authors"  # noqa: A001 - Sphinx's name

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build"]
myst_heading_anchors = 3
html_theme = "furo"
html_title = "handclasp"

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_class_signature = "separated"
autodoc_default_options = {"members": True, "show-inheritance": True, "exclude-members": "__init__,__new__"}
autodoc_preserve_defaults = True
add_module_names = False
napoleon_use_rtype = False
# Types of the standard library and of other packages are not linked: there is no internet when the docs are built.
nitpicky = False
