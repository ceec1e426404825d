"""Reads published candidate lists, which test items are ranked against.

The format `.test.negative` is the one of He et al., "Neural Collaborative Filtering"
(WWW 2017): a line `(user,item)` and then the candidates, separated by tabs. A table has
a column of the user, a column of the held-out item, and one or more columns of
candidates; a user may have several rows.
"""

import csv
import gzip
import re
import zlib
from pathlib import Path

import polars as pl

from fedpeft_jax.core.errors import InputError
from fedpeft_jax.data.readers.columns import KNOWN, find_column
from fedpeft_jax.data.readers.delimited import SEPARATORS
from fedpeft_jax.data.readers.files import unreadable
from fedpeft_jax.data.readers.ids import as_ids

_NCF = re.compile(r"^\(([^,()]+),([^,()]+)\)$")


def read_candidates_file(file: str | Path) -> pl.DataFrame:
    """Reads a file of candidate lists. Lists may differ in length.

    Args:
      file: in NCF's format or a delimited table, gzip-compressed or not, or a Parquet
        file.

    Returns:
      Columns `user`, `item` and `candidate` of strings, one row per candidate.

    Raises:
      InputError: for a file that cannot be read, or a row without user, item or
        candidates.

    Example:
      >>> import tempfile
      >>> path = Path(tempfile.mkdtemp()) / "toy.test.negative"
      >>> _ = path.write_text("(0,25)\\t10\\t11\\n(1,3)\\t7\\n")
      >>> read_candidates_file(path).rows()
      [('0', '25', '10'), ('0', '25', '11'), ('1', '3', '7')]
    """
    path = Path(file)
    if path.suffix in (".parquet", ".pq"):
        try:
            with path.open("rb") as opened:
                return read_candidates_frame(str(path), pl.read_parquet(opened))
        except OSError as error:
            raise unreadable(path, error) from error
        except pl.exceptions.PolarsError as error:
            reason = " ".join(str(error).split())[:200]
            raise InputError(
                f"{path}: is not a complete Parquet file ({reason}): write it again"
            ) from error
    lines = _lines(path)
    if lines[0].startswith("("):
        rows = [_ncf_row(path, number, line) for number, line in enumerate(lines, 1)]
    else:
        rows = _table_rows(path, lines)
    users, items, candidates = [], [], []
    for number, (user, item, *others) in enumerate(rows, 1):
        others = [other for other in others if other]
        if not (user and item and others):
            raise InputError(
                f"{path}: row {number} does not have a user, a held-out item and at "
                "least one candidate: repair the row"
            )
        users += [user] * len(others)
        items += [item] * len(others)
        candidates += others
    columns = {"user": users, "item": items, "candidate": candidates}
    return pl.DataFrame(columns, schema=dict.fromkeys(columns, pl.String))


def read_candidates_frame(name: str, frame: pl.DataFrame) -> pl.DataFrame:
    """Reads a table of candidate lists in memory.

    Args:
      name: the name of the table, for errors.
      frame: a column of the user and one of the held-out item, found by their names,
        and other columns, each of one candidate per row or of a list of them; null is
        no candidate.

    Returns:
      Columns `user`, `item` and `candidate` of strings, one row per candidate.

    Raises:
      InputError: for a missing column, or ids that are neither integers nor strings.

    Example:
      >>> frame = pl.DataFrame({"user": [1], "item": [7], "negatives": [[3, 4]]})
      >>> read_candidates_frame("mine", frame).rows()
      [('1', '7', '3'), ('1', '7', '4')]
    """
    user = find_column(name, frame.columns, "user", None)
    item = find_column(name, frame.columns, "item", None)
    others = [column for column in frame.columns if column not in (user, item)]
    if not others:
        raise InputError(
            f"{name}: has no column of candidates beside the user and the item: add one"
        )
    parts = []
    for column in others:
        part = frame.select(user=user, item=item, candidate=column)
        if part["candidate"].dtype in (pl.List, pl.Array):
            part = part.explode("candidate")
        part = part.filter(pl.col("candidate").is_not_null())
        parts.append(
            part.select(
                as_ids(name, role, part[role]).cast(pl.String).alias(role)
                for role in ("user", "item", "candidate")
            )
        )
    return pl.concat(parts)


def _lines(path: Path) -> list[str]:
    try:
        data = path.read_bytes()
        if data[:2] == b"\x1f\x8b":
            data = gzip.decompress(data)
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: is not in UTF-8: convert the file") from error
    except (OSError, EOFError, zlib.error) as error:
        raise unreadable(path, error) from error
    lines = [line for line in text.splitlines() if line.strip()]
    if not lines:
        raise InputError(f"{path}: the file is empty: choose a file with rows")
    return lines


def _ncf_row(path: Path, number: int, line: str) -> list[str]:
    first, *others = line.rstrip("\t ").split("\t")
    match = _NCF.match(first.strip())
    if match is None:
        raise InputError(
            f"{path}: row {number} does not begin with (user,item), and the first row "
            "does: repair the row"
        )
    return [match[1].strip(), match[2].strip(), *(other.strip() for other in others)]


def _table_rows(path: Path, lines: list[str]) -> list[list[str]]:
    """Returns user, item and candidates of each row."""
    separator = max(SEPARATORS, key=lines[0].count)
    if lines[0].count(separator) < 2:
        raise InputError(
            f"{path}: the first row does not have a user, a held-out item and at least "
            "one candidate: write them separated by tabs or commas"
        )
    if len(separator) == 1:
        rows = list(csv.reader(lines, delimiter=separator))
    else:
        rows = [line.split(separator) for line in lines]
    rows = [[value.strip() for value in row] for row in rows]
    names = rows[0]
    plain = ["".join(c for c in name.lower() if c.isalnum()) for name in names]
    if not any(name in KNOWN["user"].split() for name in plain):
        return rows
    user = find_column(str(path), names, "user", None)
    item = find_column(str(path), names, "item", None)
    assert user is not None
    assert item is not None
    first = [names.index(user), names.index(item)]
    order = [*first, *(place for place in range(len(names)) if place not in first)]
    # A row may be shorter than the header, or longer.
    return [
        [row[place] for place in order if place < len(row)] + row[len(names) :]
        for row in rows[1:]
    ]
