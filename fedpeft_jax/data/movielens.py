"""Reads MovieLens-1M as GroupLens publishes it: ``ml-1m.zip`` or its unpacked folder.

Harper and Konstan, "The MovieLens Datasets" (TiiS 2015),
https://grouplens.org/datasets/movielens/1m/. Fields are separated by ``::``, titles are
in Latin-1, and row order within a user is not time order.
"""

import os
import zipfile
import zlib
from pathlib import Path

import polars as pl

from fedpeft_jax.data.dataset import Dataset, build_dataset
from fedpeft_jax.errors import InputError

URL = "https://grouplens.org/datasets/movielens/1m/"
NUM_RATINGS = 1_000_209
"""Ratings in the published file."""

_RATING = r"^[0-9]{1,18}::[0-9]{1,18}::[0-9]+(?:\.[0-9]+)?::[0-9]{1,18}$"
_MOVIE = r"^([0-9]{1,18})::(.*[^\s:].*)::([^:]*)$"
_RATING_FIELDS = "UserID::MovieID::Rating::Timestamp"
_MOVIE_FIELDS = "MovieID::Title::Genres"


def load_movielens_1m(data_dir: str | os.PathLike[str]) -> Dataset:
    """Loads MovieLens-1M; every rating is an interaction, whatever its value.

    Args:
      data_dir: ``ml-1m.zip`` itself, the folder that holds it, the folder that holds
        the unpacked ``ml-1m`` folder, or that folder.

    Returns:
      The data set, named ``ml-1m``. An item's prompt is made from its attributes:
      ``Title: Toy Story (1995). Genres: Animation, Children's, Comedy.``

    Raises:
      InputError: the files are absent, unreadable, damaged or empty, or a row is
        malformed. A file is read whole or not at all.

    Example:
      >>> import tempfile
      >>> folder = Path(tempfile.mkdtemp())
      >>> rows = ["1::2::5::978300760", "1::7::3::978300761", "1::5::4::978300759"]
      >>> _ = (folder / "ratings.dat").write_text("\\n".join(rows) + "\\n")
      >>> movies = "2::Jumanji (1995)::Adventure|Fantasy\\n5::Up::\\n7::Him::Drama\\n"
      >>> _ = (folder / "movies.dat").write_text(movies)
      >>> data = load_movielens_1m(folder)
      >>> data.item_ids[data.items].tolist()
      [5, 2, 7]
      >>> data.item_text[0]
      'Title: Jumanji (1995). Genres: Adventure, Fantasy.'
    """
    ratings_name, ratings, movies_name, movies = _read_files(Path(data_dir))
    _checked_lines(ratings_name, ratings, _RATING, _RATING_FIELDS)
    # Every row has the layout, so '::' can be read as ':' around an empty column.
    interactions = pl.read_csv(
        ratings,
        separator=":",
        has_header=False,
        columns=[0, 2, 6],
        schema={f"{column}": pl.Int64 for column in range(7)},
    )
    interactions.columns = ["user", "item", "time"]
    notes = []
    if len(interactions) != NUM_RATINGS:
        notes.append(
            f"{ratings_name} holds {len(interactions)} ratings, "
            f"the published file {NUM_RATINGS}"
        )
    listed = (
        _checked_lines(movies_name, movies, _MOVIE, _MOVIE_FIELDS)
        .str.extract_groups(_MOVIE)
        .struct.unnest()
    )
    genres = pl.col("3").str.strip_chars().str.replace_all("|", ", ", literal=True)
    prompts = listed.select(
        item=pl.col("1").cast(pl.Int64),
        text=pl.format("Title: {}.", pl.col("2").str.strip_chars())
        + pl.when(genres == "")
        .then(pl.lit(""))
        .otherwise(pl.format(" Genres: {}.", genres)),
    )
    return build_dataset("ml-1m", interactions, prompts, notes=notes)


def _read_files(path: Path) -> tuple[str, bytes, str, bytes]:
    """Name and content of the ratings and movies files, wherever they lie."""
    try:
        for folder in (path / "ml-1m", path):
            # The first folder with either file is meant: the other is then missing.
            if any((folder / name).is_file() for name in ("ratings.dat", "movies.dat")):
                return (
                    *_read_member(folder, "ratings.dat"),
                    *_read_member(folder, "movies.dat"),
                )
        archive = path if path.is_file() else path / "ml-1m.zip"
        if archive.is_file():
            return _read_archive(archive)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise InputError(
            f"{error.filename or path}: cannot be read ({reason}): "
            "check the file and its permissions"
        ) from error
    problem = "holds neither" if path.is_dir() else "no such file or folder, expected"
    raise InputError(
        f"{path}: {problem} ml-1m.zip, ml-1m/ratings.dat or ratings.dat: "
        f"download ml-1m.zip from {URL} and point data_dir at its folder"
    )


def _read_member(folder: Path, name: str) -> tuple[str, bytes]:
    """Path and content of one unpacked file."""
    if not (folder / name).is_file():
        raise InputError(
            f"{folder / name}: no such file: unpack ml-1m.zip whole ({URL})"
        )
    return str(folder / name), (folder / name).read_bytes()


def _read_archive(archive: Path) -> tuple[str, bytes, str, bytes]:
    """Name and content of the two members of the archive; zip checksums are checked."""
    try:
        with zipfile.ZipFile(archive) as opened:
            members = set(opened.namelist())
            found = []
            for name in ("ratings.dat", "movies.dat"):
                member = f"ml-1m/{name}" if f"ml-1m/{name}" in members else name
                if member not in members:
                    raise InputError(
                        f"{archive}: has no member ml-1m/{name}: "
                        f"download ml-1m.zip again from {URL}"
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
            f"{archive}: truncated, damaged or not a zip file ({reason}): "
            f"download ml-1m.zip again from {URL}"
        ) from error
    return *found[0], *found[1]


def _checked_lines(name: str, content: bytes, pattern: str, fields: str) -> pl.Series:
    """The file's lines; raises InputError unless every one matches the pattern."""
    # Polars' CSV reader takes one-byte separators only and fills short rows with
    # nulls, so whole lines are checked against the layout before they are taken apart.
    lines = pl.Series(content.decode("latin-1").split("\n"), dtype=pl.String)
    lines = lines.str.strip_suffix("\r")
    if lines[-1] == "":
        lines = lines[:-1]
    if lines.is_empty():
        raise InputError(
            f"{name}: the file is empty: download ml-1m.zip again from {URL}"
        )
    good = lines.str.contains(pattern)
    if not good.all():
        row = good.arg_min() or 0
        shown = lines[row] if len(lines[row]) <= 80 else lines[row][:80] + "..."
        raise InputError(
            f"{name}: row {row + 1} is {shown!r}, not {fields}: "
            f"repair it, or download ml-1m.zip again from {URL}"
        )
    return lines
