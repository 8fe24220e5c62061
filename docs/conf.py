"""The site of docs/, by Sphinx: `make docs` builds it into build/docs."""

import dynamicdps

project = "DynamicDPS"
author = "DynamicDPS developers"
project_copyright = author
version = release = dynamicdps.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
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
