"""Finds the titles of items in the prompts that readers write.

A prompt has one sentence per attribute, `Label: value.`, as `readers/raw.py` writes it.
The title is the attribute with the label `Title` or `Name`, or else the first one.
"""

import collections
import re
from collections.abc import Sequence

_LABEL = re.compile(r"(?:^|(?<=\. ))([A-Z][^:.\n]{0,40}): ")
_TITLES = ("title", "name", "item name", "product name", "movie title")
# A phrase that ends in a colon inside a title is no label: labels are words, or phrases
# that many items have.
_COMMON, _SOME = 0.05, 0.01
_FEW = 3
_LONGEST = 200


def titles_of(prompts: Sequence[str]) -> list[str | None]:
    """Returns the title of each item, None for an item without text.

    Args:
      prompts: one text per item, `''` for an item without text.

    Example:
      >>> prompts = ["Title: Mr. Up (1995). Genres: Crime.", "Title: Z. Genres: War."]
      >>> titles_of([*prompts, "", "a red kite"])
      ['Mr. Up (1995)', 'Z', None, 'a red kite']
    """
    labels = _labels(prompts)
    return [_title(prompt, labels) if prompt else None for prompt in prompts]


def _labels(prompts: Sequence[str]) -> set[str]:
    """Returns the words before a colon that are labels of attributes."""
    counts = collections.Counter(
        label for prompt in prompts for label in set(_LABEL.findall(prompt))
    )
    return {
        label
        for label, count in counts.items()
        if count >= (_COMMON if " " in label else _SOME) * len(prompts)
        and (count > 1 or (" " not in label and len(prompts) < _FEW))
    }


def _title(prompt: str, labels: set[str]) -> str:
    found = [match for match in _LABEL.finditer(prompt) if match[1] in labels]
    if not found or found[0].start():
        return _short(prompt)  # the text has no attributes, or begins with another one
    wanted = [match for match in found if match[1].lower() in _TITLES]
    first = wanted[0] if wanted else found[0]
    after = [match.start() for match in found if match.start() > first.start()]
    value = prompt[first.end() : after[0] if after else len(prompt)]
    return _short(value.strip().removesuffix("."))


def _short(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= _LONGEST else text[: _LONGEST - 3] + "..."
