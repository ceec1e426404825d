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
from sphinx.domains.python import PyObject

ROOT = pathlib.Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

import fedpeft_jax  # noqa: E402
from fedpeft_jax.core import specs  # noqa: E402
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
html_copy_source = html_show_sourcelink = html_show_copyright = False
html_math_renderer = "mathml"
smartquotes_action = "D"  # dashes, but no quotes, which are code more often

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
napoleon_attr_annotations = False  # the signature has them
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
FAR = 1e6  # a bound beyond it only says that a number has a limit
ROOT_PAGES = {"index": "README.md", "contributing": "CONTRIBUTING.md"}


def in_cell(text: str) -> str:
    """Returns a text that may stand in a cell of a table."""
    return text.replace("|", r"\|").replace("\n", " ").replace("<", r"\<")


def group_by_registry() -> dict[int, list[str]]:
    """Returns the settings that share a registry, for each of them."""
    groups: dict[int, list[str]] = {}
    for setting, registry in REGISTRIES.items():
        groups.setdefault(id(registry), []).append(setting)
    return groups


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
            near = (x if x is None or abs(x) < FAR else None for x in bounds)
            limits = type(bounds)(*near).words()
            help_ += f"; {limits}" if limits else ""
            default = "" if field.default is None else f"`{field.default}`"
            parts.append(f"| `--{field.name}` | {default} | {in_cell(help_)} |")
    return "\n".join(parts)


def plugins_page() -> str:
    """Returns lists of the plugins that every setting takes, as Markdown."""
    parts = []
    for settings in group_by_registry().values():
        parts.append(f"\n## {', '.join(f'`--{setting}`' for setting in settings)}\n")
        for name, factory in sorted(REGISTRIES[settings[0]].items()):
            found = (
                factory if factory.__doc__ else factory()
            )  # a function without arguments
            line = (inspect.getdoc(found) or "").partition("\n\n")[0]
            line = line.replace("\n", " ").replace(":math:", "{math}")
            parts.append(f"- `{specs.signature(name, factory)}`<br>{line}")
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
        source[0] = source[0].replace("](../docs/", "](/")
    # A figure and its spread stay on one line of a cell.
    source[0] = re.sub(r"(?<=\d) (?=[±%])|(?<=±) (?=[\d.])", "\u00a0", source[0])
    source[0] = source[0].replace("](../README.md", "](/index.md")
    source[0] = source[0].replace("](../CONTRIBUTING.md", "](/contributing.md")


def write_math(translator: Any, node: nodes.Element) -> None:
    """Writes an equation as MathML, which needs no script from elsewhere."""
    block = isinstance(node, nodes.math_block)
    equation = tex2mathml(node.astext(), as_block=block)
    translator.body.append(f'<div class="math">{equation}</div>' if block else equation)
    raise nodes.SkipNode


def short_signature(
    app: Any, what: str, name: str, value: Any, options: Any, signature: str, out: str
) -> tuple[str, str] | None:
    """Leaves out what Flax adds to every module, and defaults that are functions."""
    if what != "class" or not signature:
        return None
    short = re.sub(r", parent: .*name: str \| None = None\)$", ")", signature)
    if issubclass(value, tuple):
        tuples = r" = \((?:[^()]|\((?:[^()]|\([^()]*\))*\))*\)"
        short = re.sub(rf"{tuples}| = <[^>]*>+", " = ...", short)
    return short, out


def setup(app: Any) -> None:
    """Registers the functions of this file."""
    for field in PyObject.doc_field_types:
        if field.name == "variable":  # napoleon's name for attributes
            field.label = "Attributes"
    app.connect("autodoc-process-signature", short_signature)
    app.connect("source-read", read_source)
    renderers = (write_math, None)
    app.add_html_math_renderer("mathml", renderers, renderers)
