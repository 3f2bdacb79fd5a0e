"""Sphinx: the pages are Markdown (MyST); what the code already says is generated from it (`_ext/redisq_reference.py`)."""

from __future__ import annotations

import sys
from importlib.metadata import version as installed
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "_ext"))

project = "redisq"
copyright = "the redisq contributors"  # noqa: A001 - the name that Sphinx reads
version = release = installed("redisq-tasks")

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "redisq_reference"]
exclude_patterns = ["_build"]
myst_heading_anchors = 3
# `--json` is an option, not a dash.
smartquotes = False

autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
napoleon_google_docstring = True
napoleon_numpy_docstring = False
# Attributes of slotted and frozen classes are documented in the class's docstring alone.
napoleon_use_ivar = True

nitpicky = True
# What stands in signatures alone: names of the standard library, type variables, and modules that are not public.
nitpick_ignore_regex = [
    ("py:.*", r"(?!redisq\b).*"),
    ("py:.*", r"redisq\.(app|broker|cli|codec|message|types|worker)\b.*"),
]

html_theme = "furo"
html_title = "redisq"
html_copy_source = False
