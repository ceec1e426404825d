"""Builds the site: `python -m sphinx -W --keep-going -b html docs build/docs`.

The build needs no network. Three kinds of pages are not written by hand: those that
show a file of the repository's root, the list of all flags, and the list of plugins.
"""

import inspect
import pathlib
import re
import sys
from typing import Any

from docutils import nodes
from docutils.utils.math.latex2mathml import tex2mathml

ROOT = pathlib.Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

import fedpeft_jax  # noqa: E402
from fedpeft_jax.core import specs  # noqa: E402
from fedpeft_jax.core.settings import kind_of  # noqa: E402
from fedpeft_jax.experiment.plugins import REGISTRIES  # noqa: E402
from fedpeft_jax.experiment.run_config import GROUPS  # noqa: E402

project = "fedpeft_jax"
author = "the fedpeft_jax contributors"
release = fedpeft_jax.__version__

extensions = ["sphinx.ext.autodoc", "sphinx.ext.napoleon", "myst_nb"]
exclude_patterns = ["**.ipynb_checkpoints", "notebooks/*.md", "notebooks/*.py"]

html_theme = "furo"
html_title = "fedpeft_jax"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = html_show_sourcelink = False
html_math_renderer = "mathml"
smartquotes = False  # two hyphens begin a flag

# Notebooks are shown as they were committed. The notebooks' own test runs them.
nb_execution_mode = "off"
myst_heading_anchors = 4
myst_enable_extensions = ["colon_fence"]

# Docstrings write code in single backticks, as in Markdown.
default_role = "literal"
add_module_names = False
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
maximum_signature_line_length = 72
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
napoleon_custom_sections = ["Source"]

GROUP_TITLES = {
    "data": "Data and candidates",
    "text": "Item text",
    "model": "Recommender and item embedding",
    "training": "Local training",
    "server": "Server, uploads and downloads",
    "privacy": "Differential privacy",
    "evaluation": "Evaluation",
    "link": "Seconds on a link",
    "run": "Rounds, checkpoints and the run folder",
}
ROOT_PAGES = {"index": "README.md", "contributing": "CONTRIBUTING.md"}


def in_cell(text: str) -> str:
    """Returns a text that may stand in a cell of a table."""
    return text.replace("|", r"\|").replace("\n", " ").replace("<", r"\<")


def flags_page() -> str:
    """Returns a table of the flags of every group of settings, as Markdown."""
    parts = []
    for group, settings in GROUPS.items():
        parts += [
            f"\n## {GROUP_TITLES.get(group, group)}\n",
            "| flag | default | what it sets |\n| --- | --- | --- |",
        ]
        for field in vars(settings)["__dataclass_fields__"].values():
            choices, bounds = field.metadata["choices"], field.metadata["bounds"]
            names = re.compile(rf"`({'|'.join(fedpeft_jax.FIELDS)})(?=[=`])")
            help_ = names.sub(r"`--\1", field.metadata["help"])
            help_ += f" ({', '.join(choices)})" if choices else ""
            limits = "" if kind_of(field) in (str, bool) else bounds.words()
            help_ += f"; {limits}" if limits else ""
            default = "" if field.default is None else f"`{field.default}`"
            parts.append(f"| `--{field.name}` | {default} | {in_cell(help_)} |")
    return "\n".join(parts)


def plugins_page() -> str:
    """Returns a table of the plugins that every setting takes, as Markdown."""
    parts = []
    for setting, registry in REGISTRIES.items():
        parts += [f"\n## `--{setting}`\n", "| spec | what it is |\n| --- | --- |"]
        for name, factory in sorted(registry.items()):
            first = (inspect.getdoc(factory) or "").partition("\n\n")[0]
            line = in_cell(first.replace(":math:", ""))
            parts.append(f"| `{in_cell(specs.signature(name, factory))}` | {line} |")
    return "\n".join(parts)


GENERATED = {"flags": flags_page, "plugins": plugins_page}


def read_source(app: Any, docname: str, source: list[str]) -> None:
    """Puts the content that is not written by hand into a page that is read."""
    if docname in ROOT_PAGES:
        path = ROOT / ROOT_PAGES[docname]
        app.env.note_dependency(str(path))
        text = path.read_text().replace("](docs/", "](")
        source[0] = text.replace("](CONTRIBUTING.md", "](contributing.md") + source[0]
    elif docname in GENERATED:
        source[0] += GENERATED[docname]()
    elif docname.startswith("notebooks/"):  # a link of the folder beside docs/
        source[0] = source[0].replace("](../docs/", "](../")
    source[0] = source[0].replace("](../README.md", "](index.md")
    source[0] = source[0].replace("](../CONTRIBUTING.md", "](contributing.md")


def write_math(translator: Any, node: nodes.Element) -> None:
    """Writes an equation as MathML, which needs no script from elsewhere."""
    block = isinstance(node, nodes.math_block)
    equation = tex2mathml(node.astext(), as_block=block)
    translator.body.append(f'<div class="math">{equation}</div>' if block else equation)
    raise nodes.SkipNode


def setup(app: Any) -> None:
    """Registers the functions of this file."""
    app.connect("source-read", read_source)
    renderers = (write_math, None)
    app.add_html_math_renderer("mathml", renderers, renderers)
