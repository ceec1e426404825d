"""Finds the columns of a table by their common names, and rows that are headers."""

from collections.abc import Sequence

import polars as pl

from fedpeft_jax.core.errors import InputError
from fedpeft_jax.data.readers.rows import refuse_rows

KNOWN = {
    "user": "user userid uid reviewerid customerid memberid",
    "item": "item itemid iid movieid asin parentasin productid articleid isbn",
    "time": "time timestamp unixreviewtime date datetime ts",
    "rating": "rating overall score stars",
}
"""Common names of a column, in lower case and without spaces and punctuation."""


def find_column(
    name: str,
    columns: Sequence[str],
    role: str,
    given: str | None,
    *,
    needed: bool = True,
    setting: str | None = None,
) -> str | None:
    """Returns the name of the column with a role, None if there is none.

    Args:
      name: the name of the file, for errors.
      columns: the columns of the file.
      role: ``'user'``, ``'item'``, ``'time'`` or ``'rating'``.
      given: the name of the column; None to search it, ``'none'`` for no column.
      needed: whether a missing column is an error.
      setting: the setting that names the column; None for that of the role.

    Raises:
      InputError: if the column is missing, or several columns match.

    Example:
      >>> find_column("f", ["userId", "movieId", "n"], "item", None)
      'movieId'
    """
    setting = setting or f"{role}_column"
    listed = ", ".join(columns[:20]) + (", ..." if len(columns) > 20 else "")
    if given is not None:
        if given == "none" and not needed:
            return None
        if given not in columns:
            raise InputError(
                f"{name}: has no column {given!r} (found: {listed}): set "
                f"`{setting}` to one of them"
            )
        return given
    known = KNOWN[role].split()
    matches = [column for column in columns if _plain(column) in known]
    if len(matches) > 1:
        raise InputError(
            f"{name}: the {role} could be column {' or '.join(map(repr, matches))} "
            f"(found: {listed}): set `{setting}` to one of them"
        )
    if not matches and needed:
        raise InputError(
            f"{name}: no column has a common name of the {role} (found: {listed}): "
            f"set `{setting}`"
        )
    return matches[0] if matches else None


def refuse_headers(name: str, users: pl.Series, items: pl.Series) -> None:
    """Raises InputError for a row that repeats the header, as joined files have."""
    if users.dtype == pl.String and items.dtype == pl.String:
        repeated = _are_names(users, "user")
        if repeated.any():
            repeated &= _are_names(items, "item")
            refuse_rows(name, "repeat the header", repeated, users)


def _are_names(column: pl.Series, role: str) -> pl.Series:
    """Returns which values are names of a column with a role, in any spelling."""
    between = "[ _.-]*"
    names = [between.join(name) for name in KNOWN[role].split()]
    names.append(pl.escape_regex(column.name))
    pattern = f"(?i)^{between}(?:{'|'.join(names)}){between}(?::token)?$"
    return column.str.contains(pattern).fill_null(False)


def _plain(column: str) -> str:
    return "".join(letter for letter in column.lower() if letter.isalnum())
