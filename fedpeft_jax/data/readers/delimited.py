"""Reads any delimited text file, every value as it is written, or not at all.

Polars parses. What it would pass over in silence is checked here: the separator and
the header are found, repeated names and ragged rows are refused.
"""

import csv
import gzip
import io
import re
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO, cast

import polars as pl

from fedpeft_jax.core.errors import InputError

SEPARATORS = ("::", "\t", ";", ",", "|")
_QUOTED = (",", ";")  # the others separate text that may hold a single quotation mark
_MOST_COLUMNS = 1000
_PEEK = 1 << 16
_ATOMIC = re.compile(r"^(.+):(token|token_seq|float|float_seq)$")
_NUMBER = re.compile(r"^\s*-?[0-9]+(\.[0-9]*)?([eE][+-]?[0-9]+)?\s*$")


def read_delimited(path: str | Path) -> pl.DataFrame:
    """Reads a file of rows, gzip-compressed or not, into columns of strings.

    The separator is the one of `::`, tab, semicolon, comma and bar that splits the
    first lines alike and most often. The first line is a header unless one of its
    values is a number; without one columns are `column_1`, `column_2` and so on. The
    typed headers of RecBole's atomic files lose their types.

    Args:
      path: the file.

    Returns:
      A data frame of strings; an empty value is null.

    Raises:
      InputError: for a file that is absent, empty, damaged, no UTF-8, or whose rows or
        header are malformed.

    Example:
      >>> import tempfile
      >>> path = Path(tempfile.mkdtemp()) / "log.inter"
      >>> _ = path.write_text("user_id:token\\titem_id:token\\nann\\t7\\n")
      >>> read_delimited(path).to_dicts()
      [{'user_id': 'ann', 'item_id': '7'}]
    """
    path = Path(path)
    try:
        separator, names = _layout(path, _first_lines(path))
        has_header = not any(_NUMBER.match(name) for name in names)
        if not has_header:
            names = [f"column_{number}" for number in range(1, len(names) + 1)]
        names = _header(path, names)
        if len(separator) > 1:
            frame = _read_lines(path, separator, names, has_header)
        else:
            frame = pl.read_csv(
                path,
                separator=separator,
                has_header=False,
                skip_rows=int(has_header),
                schema=dict.fromkeys(names, pl.String),
                quote_char='"' if separator in _QUOTED else None,
            )
            if frame[names[-1]].null_count():  # as Polars fills up a row that is cut
                _check_widths(path, separator, len(names), has_header)
    except (OSError, EOFError, zlib.error) as error:
        raise unreadable(path, error) from error
    except pl.exceptions.NoDataError:
        raise _no_rows(path) from None
    except (pl.exceptions.PolarsError, UnicodeDecodeError, csv.Error) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(
            f"{path}: its rows are not all as the first line is, or not in UTF-8 "
            f"({reason}): repair the file"
        ) from error
    return _without_blank_end(path, frame)


def _no_rows(path: Path) -> InputError:
    return InputError(f"{path}: the file has a header and no rows: name one with rows")


def unreadable(path: str | Path, error: Exception) -> InputError:
    """An InputError for a file that cannot be opened or decompressed."""
    if isinstance(error, FileNotFoundError):
        return InputError(f"{path}: no such file: check its name")
    reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return InputError(
        f"{path}: cannot be read ({reason}): check the file and its permissions, or "
        "get it again"
    )


def find_separator(lines: list[str]) -> str:
    """Returns the separator that splits all lines into the same number of values.

    Example:
      >>> find_separator(["a,b;c", "1,5;2", "1;2,0"])
      ';'
    """
    best, most = ",", 1
    for separator in SEPARATORS:
        widths = {len(row) for row in _split(lines, separator)}
        # A tie goes to the first: '::' before what may stand in a title.
        if len(widths) == 1 and (width := min(widths)) > most:
            best, most = separator, width
    if most > 1:
        return best
    # Ragged: what the first line has most of, so that the error is about its rows.
    return max(SEPARATORS, key=lambda separator: lines[0].count(separator))


def _split(lines: list[str], separator: str) -> list[list[str]]:
    if separator not in _QUOTED:
        return [line.split(separator) for line in lines]
    rows = list(csv.reader(lines, delimiter=separator, strict=False))
    # The last lines may end within a value.
    return rows[:-1] if len(rows) > 2 else rows


def _first_lines(path: Path, most: int = 20) -> list[str]:
    with _open(path) as file:
        head = file.read(_PEEK)
    if head[:4] == b"PK\x03\x04":
        raise InputError(f"{path}: is a zip archive: unpack it and name the file in it")
    whole = len(head) < _PEEK
    text = head.decode("utf-8", "strict" if whole else "ignore").removeprefix("\ufeff")
    lines = text.splitlines(keepends=True)
    if not whole and len(lines) > 1:
        lines = lines[:-1]
    lines = [line for line in lines if line.strip("\r\n")][:most]
    if not lines:
        raise InputError(f"{path}: the file is empty: name one with rows")
    return lines


def _layout(path: Path, lines: list[str]) -> tuple[str, list[str]]:
    """The separator, and the values of the first line."""
    separator = find_separator([line.rstrip("\r\n") for line in lines])
    [names] = _split([lines[0].rstrip("\r\n")], separator)
    # A first line beyond what was read is cut, and has too many all the more.
    if len(names) > _MOST_COLUMNS:
        raise InputError(
            f"{path}: the first line has more than {_MOST_COLUMNS} columns: name a "
            "table with a row an interaction, or an item"
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
                "give each a name of its own"
            )
    # The first column of a frame that was saved with its index has no name.
    return [name or f"column_{place}" for place, name in enumerate(names, 1)]


def _read_lines(
    path: Path, separator: str, names: list[str], has_header: bool
) -> pl.DataFrame:
    """Reads rows whose separator has two characters; Polars takes one."""
    lines = pl.read_csv(
        path,
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
            f"{separator!r}, the first line {len(names)}: repair it"
        )
    parts = lines.str.split_exact(separator, len(names) - 1).struct.unnest()
    parts.columns = names
    return parts.with_columns(pl.all().replace("", None))


def _check_widths(path: Path, separator: str, width: int, has_header: bool) -> None:
    """Raises InputError for a row with fewer values than the first line."""
    with _open(path) as binary, io.TextIOWrapper(binary, "utf-8", newline="\n") as file:
        rows: Iterable[list[str]] = csv.reader(file, delimiter=separator)
        if separator not in _QUOTED:
            rows = (line.rstrip("\r\n").split(separator) for line in file)
        for number, row in enumerate(rows, 1 - has_header):
            if any(row) and len(row) < width:
                raise InputError(
                    f"{path}: row {number} has {len(row)} values, the first line "
                    f"{width}: repair it"
                )


def _open(path: Path) -> BinaryIO:
    """Opens a file, gzip-compressed or not."""
    with path.open("rb") as file:
        packed = file.read(2) == b"\x1f\x8b"
    return cast("BinaryIO", gzip.open(path)) if packed else path.open("rb")


def _without_blank_end(path: Path, frame: pl.DataFrame) -> pl.DataFrame:
    """Drops the blank lines that some editors leave at the end."""
    blank = frame.select(pl.all_horizontal(pl.all().is_null())).to_series()
    last = (~blank).arg_true()
    if not len(last):
        raise _no_rows(path)
    return frame.head(int(last[-1]) + 1)
