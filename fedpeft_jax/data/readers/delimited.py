"""Reads any delimited text file into columns of strings, completely or not at all.

Polars parses the rows. This file finds the separator and the header, and refuses what
Polars accepts silently: repeated column names, and rows of different lengths.
"""

import csv
import io
import re
from collections.abc import Iterable
from pathlib import Path

import polars as pl

from fedpeft_jax.core.errors import InputError
from fedpeft_jax.data.readers.files import (
    check_ratio,
    open_file,
    open_unpacked,
    reading,
)

SEPARATORS = ("::", "\t", ";", ",", "|")
_QUOTED = (",", ";")  # the others separate text that may hold a single quotation mark
_MOST_COLUMNS = 1000
_PEEK = 1 << 16
_ATOMIC = re.compile(r"^(.+):(token|token_seq|float|float_seq)$")
_NUMBER = re.compile(r"^\s*-?[0-9]+(\.[0-9]*)?([eE][+-]?[0-9]+)?\s*$")


def read_delimited(path: str | Path) -> pl.DataFrame:
    """Reads a file of rows, gzip-compressed or not, into columns of strings.

    The separator is the one of `::`, tab, semicolon, comma and bar that splits all of
    the first lines into the same number of values, and into the most. The first line is
    a header unless one of its values is a number; without a header the columns are
    `column_1`, `column_2` and so on. The types in the headers of RecBole's atomic files
    are removed.

    Args:
      path: the file.

    Returns:
      A data frame of strings, where an empty value is null.

    Raises:
      InputError: for a file that is missing, empty, damaged or not in UTF-8, or whose
        rows or header are malformed.

    Example:
      >>> import tempfile
      >>> path = Path(tempfile.mkdtemp()) / "log.inter"
      >>> _ = path.write_text("user_id:token\\titem_id:token\\nann\\t7\\n")
      >>> read_delimited(path).to_dicts()
      [{'user_id': 'ann', 'item_id': '7'}]
    """
    path = Path(path)
    with reading(path):
        frame = _read(path)
    return _without_blank_end(path, frame)


def _read(path: Path) -> pl.DataFrame:
    try:
        check_ratio(path)
        separator, names = _layout(path, _first_lines(path))
        has_header = not any(_NUMBER.match(name) for name in names)
        if not has_header:
            names = [f"column_{number}" for number in range(1, len(names) + 1)]
        names = _header(path, names)
        if len(separator) > 1:
            frame = _read_lines(path, separator, names, has_header)
        else:
            with open_file(path) as file:
                frame = pl.read_csv(
                    file,
                    separator=separator,
                    has_header=False,
                    skip_rows=int(has_header),
                    schema=dict.fromkeys(names, pl.String),
                    quote_char='"' if separator in _QUOTED else None,
                )
            if frame[names[-1]].null_count():  # Polars fills a short row with nulls
                _check_widths(path, separator, len(names), has_header)
    except pl.exceptions.NoDataError:
        raise _no_rows(path) from None
    except (pl.exceptions.PolarsError, UnicodeDecodeError, csv.Error) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(
            f"{path}: the rows differ from the first line, or are not in UTF-8 "
            f"({reason}): repair the file"
        ) from error
    return frame


def _no_rows(path: Path) -> InputError:
    return InputError(f"{path}: the file has no rows: choose a file with rows")


def find_separator(lines: list[str]) -> str:
    """Returns the separator that splits all lines into the same number of values.

    Example:
      >>> find_separator(["a,b;c", "1,5;2", "1;2,0"])
      ';'
    """
    best, most = ",", 1
    for separator in SEPARATORS:
        widths = {len(row) for row in _split(lines, separator)}
        # A tie goes to the first one: '::' before those that titles may contain.
        if len(widths) == 1 and (width := min(widths)) > most:
            best, most = separator, width
    if most > 1:
        return best
    # No separator fits. Choose the most frequent one, so the error is about the rows.
    return max(SEPARATORS, key=lambda separator: lines[0].count(separator))


def _split(lines: list[str], separator: str) -> list[list[str]]:
    if separator not in _QUOTED:
        return [line.split(separator) for line in lines]
    rows = list(csv.reader(lines, delimiter=separator, strict=False))
    # The last line may end within a quoted value.
    return rows[:-1] if len(rows) > 2 else rows


def _first_lines(path: Path, most: int = 20) -> list[str]:
    with open_unpacked(path) as file:
        head = file.read(_PEEK)
    if head[:4] == b"PK\x03\x04":
        raise InputError(f"{path}: is a zip archive: unpack it and use a file in it")
    whole = len(head) < _PEEK
    text = head.decode("utf-8", "strict" if whole else "ignore").removeprefix("\ufeff")
    lines = text.splitlines(keepends=True)
    if not whole and len(lines) > 1:
        lines = lines[:-1]
    lines = [line for line in lines if line.strip("\r\n")][:most]
    if not lines:
        raise InputError(f"{path}: the file is empty: choose a file with rows")
    return lines


def _layout(path: Path, lines: list[str]) -> tuple[str, list[str]]:
    """Returns the separator, and the values of the first line."""
    separator = find_separator([line.rstrip("\r\n") for line in lines])
    [names] = _split([lines[0].rstrip("\r\n")], separator)
    # If the first line is longer than what was read, it has too many columns too.
    if len(names) > _MOST_COLUMNS:
        raise InputError(
            f"{path}: the first line has more than {_MOST_COLUMNS} columns: use a "
            "table with one row per interaction, or per item"
        )
    return separator, names


def _header(path: Path, names: list[str]) -> list[str]:
    names = [name.strip() for name in names]
    typed = [_ATOMIC.match(name) for name in names]
    if all(typed):
        names = [match[1] for match in typed if match]
    for name in names:
        if name and names.count(name) > 1:
            raise InputError(
                f"{path}: the header names column {name!r} {names.count(name)} times: "
                "give each column a different name"
            )
    # The first column has no name if a data frame was saved with its index.
    return [name or f"column_{place}" for place, name in enumerate(names, 1)]


def _read_lines(
    path: Path, separator: str, names: list[str], has_header: bool
) -> pl.DataFrame:
    """Reads rows with a separator of two characters; Polars supports only one."""
    with open_file(path) as file:
        lines = pl.read_csv(
            file,
            separator="\x1f",
            has_header=False,
            skip_rows=int(has_header),
            schema={"line": pl.String},
            quote_char=None,
        )["line"].str.strip_chars_end("\r")
    widths = lines.str.count_matches(separator, literal=True) + 1
    if (wrong := (widths != len(names)).fill_null(True)).any():
        row = wrong.arg_max() or 0
        raise InputError(
            f"{path}: row {row + 1} has {widths[row] or 0} values separated by "
            f"{separator!r}, and the first line has {len(names)}: repair the row"
        )
    parts = lines.str.split_exact(separator, len(names) - 1).struct.unnest()
    parts.columns = names
    return parts.with_columns(pl.all().replace("", None))


def _check_widths(path: Path, separator: str, width: int, has_header: bool) -> None:
    """Raises InputError for a row with fewer values than the first line."""
    with (
        open_unpacked(path) as binary,
        io.TextIOWrapper(binary, "utf-8", newline="\n") as file,
    ):
        rows: Iterable[list[str]] = csv.reader(file, delimiter=separator)
        if separator not in _QUOTED:
            rows = (line.rstrip("\r\n").split(separator) for line in file)
        for number, row in enumerate(rows, 1 - has_header):
            if any(row) and len(row) < width:
                raise InputError(
                    f"{path}: row {number} has {len(row)} values, and the first line "
                    f"has {width}: repair the row"
                )


def _without_blank_end(path: Path, frame: pl.DataFrame) -> pl.DataFrame:
    """Removes the blank lines at the end that some editors add."""
    blank = frame.select(pl.all_horizontal(pl.all().is_null())).to_series()
    last = (~blank).arg_true()
    if not len(last):
        raise _no_rows(path)
    return frame.head(int(last[-1]) + 1)
