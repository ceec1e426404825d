"""Where MovieLens' files lie, and their lines, whole or not at all."""

import zipfile
import zlib
from pathlib import Path

import polars as pl

from fedpeft_jax.core.errors import InputError


def page(name: str) -> str:
    """Returns the page that a data set is published on."""
    part = name.removeprefix("ml-").removesuffix("-small")
    return f"https://grouplens.org/datasets/movielens/{part}/"


def again(name: str) -> str:
    """Returns what to do about a damaged file."""
    return f"download {name}.zip again from {page(name)}"


def find_files(
    name: str, folder: str, files: tuple[str, str], path: Path
) -> list[Path]:
    """Returns the files that a data set is read from: two, or the archive.

    Args:
      name: of the data set, and of its archive without `.zip`.
      folder: that the archive unpacks to.
      files: names of the ratings and of the movies.
      path: the archive, the unpacked folder, or a folder that holds either.

    Raises:
      InputError: if there are none, with where to get them.
    """
    for place in (path / folder, path):
        # The first folder with either file is meant: the other is then missing.
        if any((place / file).is_file() for file in files):
            for file in files:
                if not (place / file).is_file():
                    raise InputError(
                        f"{place / file}: no such file: unpack {name}.zip whole "
                        f"({page(name)})"
                    )
            return [place / file for file in files]
    archive = path if path.is_file() else path / f"{name}.zip"
    if archive.is_file():
        return [archive]
    problem = "holds neither" if path.is_dir() else "no such file or folder, expected"
    raise InputError(
        f"{path}: {problem} {name}.zip, {folder}/{files[0]} or "
        f"{files[0]}: download {name}.zip from {page(name)} and point data_dir "
        "at its folder, or set --download"
    )


def read_files(
    name: str, folder: str, files: tuple[str, str], path: Path
) -> tuple[str, bytes, str, bytes]:
    """Name and content of the ratings and movies files, wherever they lie."""
    try:
        found = find_files(name, folder, files, path)
        if len(found) == 1:
            return _read_archive(name, folder, files, found[0])
        ratings, movies = found
        return str(ratings), ratings.read_bytes(), str(movies), movies.read_bytes()
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise InputError(
            f"{error.filename or path}: cannot be read ({reason}): "
            "check the file and its permissions"
        ) from error


def _read_archive(
    name: str, folder: str, files: tuple[str, str], archive: Path
) -> tuple[str, bytes, str, bytes]:
    """Name and content of the two members of the archive; zip checksums are checked."""
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
                found.append((f"{archive}:{member}", opened.read(member)))
    except (
        zipfile.BadZipFile,
        zlib.error,
        EOFError,
        NotImplementedError,  # a compression method that Python does not know
        RuntimeError,  # an encrypted member
    ) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(
            f"{archive}: truncated, damaged or not a zip file ({reason}): {again(name)}"
        ) from error
    return *found[0], *found[1]


def split_lines(name: str, file: str, content: bytes, encoding: str) -> pl.Series:
    """Returns the lines of a file.

    Raises:
      InputError: if it is empty, or in another encoding.
    """
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as error:
        raise InputError(
            f"{file}: no UTF-8 at byte {error.start}: {again(name)}"
        ) from error
    lines = pl.Series([text], dtype=pl.String).str.split("\n").explode()
    lines = lines.str.strip_suffix("\r")
    if lines[-1] == "":
        lines = lines[:-1]
    if lines.is_empty():
        raise InputError(f"{file}: the file is empty: {again(name)}")
    return lines


def without_header(name: str, file: str, lines: pl.Series, header: str) -> pl.Series:
    """Returns the lines after the first, which has to be the header."""
    if lines[0] != header or len(lines) < 2:
        raise InputError(
            f"{file}: starts with {lines[0][:80]!r}, not {header} and rows: "
            f"{again(name)}"
        )
    return lines[1:]


def check_lines(
    name: str, file: str, lines: pl.Series, pattern: str, fields: str
) -> None:
    """Raises InputError unless every line matches the pattern."""
    # Polars' CSV reader takes one-byte separators only and fills short rows with
    # nulls, so whole lines are checked against the layout before they are taken apart.
    good = lines.str.contains(pattern)
    if not good.all():
        row = good.arg_min() or 0
        shown = lines[row] if len(lines[row]) <= 80 else lines[row][:80] + "..."
        raise InputError(
            f"{file}: row {row + 1} is {shown!r}, not {fields}: "
            f"repair it, or {again(name)}"
        )
