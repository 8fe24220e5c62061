"""The site of docs/, by Sphinx: `make docs` builds it into build/docs."""

import warnings
from pathlib import Path

import dynamicdps

project = "DynamicDPS"
author = "DynamicDPS developers"
project_copyright = author
version = release = dynamicdps.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_gallery.gen_gallery"]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = f"DynamicDPS {release}"
html_copy_source = False
html_show_sphinx = False
html_theme_options = {"navigation_with_keys": True}

# Pages link to headings as GitHub names them.
myst_heading_anchors = 4
# `name` in a docstring is code, as in a comment.
default_role = "literal"
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
python_use_unqualified_type_names = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
napoleon_use_rtype = False

# The programs of examples/ become pages in docs/gallery with what they print and draw. One is run again where it has changed, and,
# by the next lines, where the package has.
_changed = max(path.stat().st_mtime for path in Path(dynamicdps.__file__).parent.rglob("*") if path.suffix in {".py", ".json"})
for _ran in Path(__file__).parent.glob("gallery/*.py.md5"):
    if _ran.stat().st_mtime < _changed:
        _ran.unlink()

sphinx_gallery_conf = {
    "examples_dirs": "../examples",
    "gallery_dirs": "gallery",
    "within_subsection_order": "FileNameSortKey",
    "image_srcset": ["2x"],
    # What is printed is shown, not what the last line of a block happens to give.
    "capture_repr": (),
    # Pages are the same whoever builds them: no durations.
    "write_computation_times": False,
    "min_reported_time": float("inf"),
    "download_all_examples": False,
    "notebook_extensions": set(),
    "show_signature": False,
}


def setup(app):
    """Warnings are errors while examples run, as they are in tests; sphinx-gallery runs them at priority 500."""
    strict = warnings.catch_warnings(action="error")
    app.connect("builder-inited", lambda _: strict.__enter__(), priority=499)
    app.connect("builder-inited", lambda _: strict.__exit__(None, None, None), priority=501)
