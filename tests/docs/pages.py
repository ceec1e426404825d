"""The pages of the documentation, and the blocks of code in them."""

import re
from typing import NamedTuple

from tests.helpers import ROOT

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(ROOT.glob("docs/*.md"))]


class Block(NamedTuple):
    """A block of code: its text, its first line in the page, and its marker."""

    code: str
    line: int
    marker: str


def blocks(page, language):
    """The blocks of a page in a language, in order.

    A comment before a block, `<!-- test: slow -->` or `<!-- test: needs NAME -->`, is
    its marker.
    """
    text = page.read_text()
    pattern = rf"(?:<!-- test: (.*?) -->\n+)?^```{language}\n(.*?)^```"
    return [
        Block(found[2], text[: found.start(2)].count("\n") + 1, found[1] or "")
        for found in re.finditer(pattern, text, re.S | re.M)
    ]
