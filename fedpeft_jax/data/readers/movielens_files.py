"""Finds the files of MovieLens, and reads their lines, all of them or none."""

import os
import zipfile
from pathlib import Path

import polars as pl

from fedpeft_jax.core.errors import InputError
from fedpeft_jax.data.readers.files import DAMAGE, check_member, is_file, unreadable


def page(name: str) -> str:
    """Returns the web page of a data set."""
    part = name.removeprefix("ml-").removesuffix("-small")
    return f"https://grouplens.org/datasets/movielens/{part}/"


def again(name: str) -> str:
    """Returns the advice for a damaged file, for the end of a message."""
    return f"download {name}.zip again from {page(name)}"


def find_files(
    name: str, folder: str, files: tuple[str, str], path: Path
) -> list[Path]:
    """Returns the files that a data set is read from: two files, or the archive.

    Args:
      name: the name of the data set, and of its archive without `.zip`.
      folder: the folder that the archive unpacks to.
      files: the names of the files of ratings and of movies.
      path: the archive, the unpacked folder, or a folder that contains one of these.

    Raises:
      InputError: if there are none, with the address to download them from.
    """
    for place in (path / folder, path):
        # The first folder with one of the files is used; both must be there.
        if any(is_file(place / file) for file in files):
            for file in files:
                if not is_file(place / file):
                    raise InputError(
                        f"{place / file}: no such file: unpack all of {name}.zip "
                        f"({page(name)})"
                    )
            return [place / file for file in files]
    archive = path if is_file(path) else path / f"{name}.zip"
    if is_file(archive):
        return [archive]
    problem = (
        "contains no" if os.path.isdir(path) else "no such file or folder, expected"
    )
    raise InputError(
        f"{path}: {problem} {name}.zip, {folder}/{files[0]} or {files[0]}: download "
        f"{name}.zip from {page(name)} and set `data_dir` to its folder, or set "
        "`fetch`"
    )


def read_files(
    name: str, folder: str, files: tuple[str, str], path: Path
) -> tuple[str, bytes, str, bytes]:
    """Returns the name and the content of the file of ratings, and those of movies.

    Raises:
      InputError: as `find_files`, and if a file cannot be read.
    """
    try:
        found = find_files(name, folder, files, path)
        if len(found) == 1:
            return _read_archive(name, folder, files, found[0])
        contents = []
        for path in found:
            contents.append(path.read_bytes())
    except (OSError, MemoryError) as error:
        raise unreadable(getattr(error, "filename", None) or path, error) from error
    return str(found[0]), contents[0], str(found[1]), contents[1]


def _read_archive(
    name: str, folder: str, files: tuple[str, str], archive: Path
) -> tuple[str, bytes, str, bytes]:
    """Returns name and content of two members; the zip file's checksums are checked."""
    try:
        with zipfile.ZipFile(archive) as opened:
            members = set(opened.namelist())
            found = []
            for file in files:
                member = f"{folder}/{file}"
                member = member if member in members else file
                if member not in members:
                    raise InputError(
                        f"{archive}: has no member {folder}/{file}: {again(name)}"
                    )
                check_member(archive, opened.getinfo(member))
                found.append((f"{archive}:{member}", opened.read(member)))
    except InputError:
        raise
    except DAMAGE as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(
            f"{archive}: truncated, damaged or not a zip file ({reason}): {again(name)}"
        ) from error
    return *found[0], *found[1]


def split_lines(name: str, file: str, content: bytes, encoding: str) -> pl.Series:
    """Returns the lines of a file.

    Raises:
      InputError: if the file is empty, or in another encoding.
    """
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as error:
        raise InputError(
            f"{file}: is not in UTF-8 at byte {error.start}: {again(name)}"
        ) from error
    lines = pl.Series([text], dtype=pl.String).str.split("\n").explode()
    lines = lines.str.strip_suffix("\r")
    if lines[-1] == "":
        lines = lines[:-1]
    if lines.is_empty():
        raise InputError(f"{file}: the file is empty: {again(name)}")
    return lines


def without_header(name: str, file: str, lines: pl.Series, header: str) -> pl.Series:
    """Returns the lines after the first; raises InputError if that is another one."""
    if lines[0] != header or len(lines) < 2:
        raise InputError(
            f"{file}: starts with {lines[0][:80]!r}, and should have {header} and then "
            f"rows: {again(name)}"
        )
    return lines[1:]


def check_lines(
    name: str, file: str, lines: pl.Series, pattern: str, fields: str
) -> None:
    """Raises InputError unless every line matches the pattern."""
    # Polars' CSV reader supports only separators of one byte, and fills short rows with
    # nulls, so whole lines are checked before they are split.
    good = lines.str.contains(pattern)
    if not good.all():
        row = good.arg_min() or 0
        shown = lines[row] if len(lines[row]) <= 80 else lines[row][:80] + "..."
        raise InputError(
            f"{file}: row {row + 1} is {shown!r}, not {fields}: "
            f"repair it, or {again(name)}"
        )
