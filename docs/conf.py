"""Sphinx builds the documentation from the installed package."""

from __future__ import annotations

from importlib.metadata import version as installed_version

from sphinx.application import Sphinx

project = "Flask-AIBridge"
author = "Flask-AIBridge contributors"
copyright = author
release = installed_version("Flask-AIBridge")
version = release

extensions = ["sphinx.ext.autodoc"]
exclude_patterns = ["_build"]
default_role = "code"

html_theme = "alabaster"
html_theme_options = {
    "description": "An AI gateway inside a Flask application",
    "fixed_sidebar": True,
    "page_width": "64rem",
    "sidebar_width": "15rem",
}
html_sidebars = {"**": ["about.html", "navigation.html", "searchbox.html"]}


def drop_mark(
    _app: object, _what: str, _name: str, _object: object, _options: object, lines: list[str]
) -> None:
    """Leave out the word that marks a module without I/O: it is for who reads the code."""
    if lines and lines[0].startswith("Pure: "):
        text = lines[0].removeprefix("Pure: ")
        lines[0] = text[:1].upper() + text[1:]


def setup(app: Sphinx) -> None:
    app.connect("autodoc-process-docstring", drop_mark)


autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"

# A name of this package that leads nowhere is an error. Names of other packages are not looked up: the build needs no
# network. Nor are the names that an annotation shortens, or that are private.
nitpick_ignore_regex = [
    (r"py:.*", r"(?!flask_aibridge\.).*"),
    (r"py:.*", r"flask_aibridge\.(.*\.)?_.*"),
    (r"py:class", r"flask_aibridge\.testing\.server\.App"),
]
