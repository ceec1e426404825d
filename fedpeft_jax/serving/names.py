"""Finds the number of an item or a user by its original id."""

import difflib
import numbers
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from fedpeft_jax.core.errors import InputError

# The most ids that are compared letter by letter with one that is not known.
_COMPARED = 20_000
# Of more ids, those around its place in the order are compared.
_AROUND = 100


class Names:
    """The original ids of all items, or of all users.

    An integer and the same integer written as a string are the same id.

    Args:
      kind: what the ids name, 'item' or 'user', for messages.
      ids: int64[n] or str[n], distinct.
      titles: the title of each, None where it is unknown; None without titles.

    Example:
      >>> names = Names("item", np.array([7, 12]), ["Up (2009)", "Brazil (1985)"])
      >>> names.rows(["12", 7]).tolist()
      [1, 0]
      >>> names.row("brazil")
      Traceback (most recent call last):
      ...
      fedpeft_jax.InputError: there is no item 'brazil': did you mean 12 (Brazil
      (1985))?
    """

    def __init__(
        self, kind: str, ids: np.ndarray, titles: Sequence[str | None] | None = None
    ) -> None:
        self._kind, self._ids, self._titles = kind, ids, titles
        self._rows = {str(id_): row for row, id_ in enumerate(ids.tolist())}

    def row(self, id_: Any) -> int:
        """Returns the number of one id.

        Raises:
          InputError: for an unknown id, with ids that are near it.
        """
        found = self._rows.get(_key(id_))
        if found is None:
            raise InputError(self._unknown(id_))
        return found

    def rows(self, ids: Any) -> np.ndarray:
        """Returns the numbers of ids, int64[n].

        Args:
          ids: one id, several in a sequence, or None for all.

        Raises:
          InputError: for an unknown id, with ids that are near it.
        """
        if ids is None:
            return np.arange(len(self._ids))
        return np.array([self.row(id_) for id_ in several(ids)], np.int64)

    def _unknown(self, id_: Any) -> str:
        shown = repr(id_) if isinstance(id_, str) else str(id_)
        message = f"there is no {self._kind} {shown[:80]}"
        near = [self._shown(row) for row in self._near(_key(id_))]
        if near:
            return f"{message}: did you mean {' or '.join(near)}?"
        if self._ids.dtype.kind == "i":
            listed = f"integers from {self._ids.min()} to {self._ids.max()}"
        else:
            listed = (
                f"such as {', '.join(map(self._shown, range(3)[: len(self._ids)]))}"
            )
        return f"{message}: the ids are {listed}, see `{self._kind}_ids`"

    def _shown(self, row: int) -> str:
        title = self._titles[row] if self._titles else None
        return f"{self._ids[row]}" + (f" ({title})" if title else "")

    def _near(self, key: str) -> list[int]:
        """Returns the rows of at most three ids or titles that are similar."""
        if self._titles and len(key) > 2:
            words = key.lower()
            named = (
                row
                for row, title in enumerate(self._titles)
                if title and words in title.lower()
            )
            if found := [row for row, _ in zip(named, range(3), strict=False)]:
                return found
        if self._ids.dtype.kind == "i" and key.lstrip("-").isdecimal():
            if not self._ids.min() < int(key) < self._ids.max():
                return []
            place = int(np.searchsorted(self._ids, int(key)))  # they ascend
            return [place - 1, place]
        pool = list(self._rows)
        if len(pool) > _COMPARED and self._ids.dtype.kind == "U":
            place = int(np.searchsorted(self._ids, key))  # ids ascend
            pool = pool[max(place - _AROUND, 0) : place + _AROUND]
        close = difflib.get_close_matches(key, pool[:_COMPARED], 3)
        return [self._rows[one] for one in close]


def several(ids: Any) -> list[Any]:
    """Returns ids as a list, also if there is only one.

    Example:
      >>> several("ab"), several((1, 2))
      (['ab'], [1, 2])
    """
    if isinstance(ids, str | bytes | numbers.Number) or not isinstance(ids, Iterable):
        return [ids]
    return list(ids)


def _key(id_: Any) -> str:
    if isinstance(id_, np.generic):
        id_ = id_.item()
    if isinstance(id_, float) and id_.is_integer():
        id_ = int(id_)  # pandas stores integers so if some are missing
    return str(id_)
