"""Reads MovieLens as GroupLens publishes it, from the archive or its unpacked folder.

Harper and Konstan, "The MovieLens Datasets" (TiiS 2015),
https://grouplens.org/datasets/movielens/. In older data sets fields are separated by
``::``, a tab or a bar, and titles are in Latin-1; newer ones are CSV in UTF-8. Row
order within a user is not time order.
"""

import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl

from fedpeft_jax.core.errors import InputError
from fedpeft_jax.data.readers.movielens_files import (
    again,
    check_lines,
    find_files,
    read_files,
    split_lines,
    without_header,
)
from fedpeft_jax.data.readers.raw import Raw

_GENRES_100K = (
    *("unknown", "Action", "Adventure", "Animation", "Children's", "Comedy", "Crime"),
    *("Documentary", "Drama", "Fantasy", "Film-Noir", "Horror", "Musical", "Mystery"),
    *("Romance", "Sci-Fi", "Thriller", "War", "Western"),
)
_NO_GENRES = "(no genres listed)"

_ID, _STARS = r"[0-9]{1,18}", r"[0-9]+(?:\.[0-9]+)?"


class Layout(NamedTuple):
    """The file layout of one of the data sets.

    Attributes:
      folder: the folder of the files in the archive.
      ratings: the name of the file of ratings.
      movies: the name of the file of movies.
      separator: the separator between the fields of a rating.
      read_movies: returns columns `item` and `text`, from the name of the file, its
        content and the name of the data set.
      num_ratings: the number of ratings in the published file; None if it changes.
      md5: the checksum of the published archive; if None, it is downloaded from the
        server.
    """

    folder: str
    ratings: str
    movies: str
    separator: str
    read_movies: Callable[[str, bytes, str], pl.DataFrame]
    num_ratings: int | None
    md5: str | None


def read_movielens(name: str, data_dir: str | os.PathLike[str]) -> Raw:
    """Reads a MovieLens data set. Every rating is an interaction, whatever its value.

    Args:
      name: a key of `LAYOUTS`, such as ``'ml-1m'``.
      data_dir: the archive, the folder of the archive, the unpacked folder, or the
        folder that contains the unpacked folder.

    Returns:
      The interactions and one prompt per movie: ``Title: Toy Story (1995). Genres:
      Animation, Children's, Comedy.``

    Raises:
      InputError: if a file is missing, unreadable, damaged or empty, or a row is
        malformed.

    Example:
      >>> import tempfile
      >>> folder = Path(tempfile.mkdtemp())
      >>> _ = (folder / "ratings.csv").write_text(
      ...     "userId,movieId,rating,timestamp\\n1,2,3.5,978300760\\n")
      >>> _ = (folder / "movies.csv").write_text(
      ...     'movieId,title,genres\\n2,"Up, Up (2009)",Drama|War\\n')
      >>> raw = read_movielens("ml-latest-small", folder)
      >>> raw.interactions.row(0), raw.item_text["text"][0]
      ((1, 2, 3.5, 978300760), 'Title: Up, Up (2009). Genres: Drama, War.')
    """
    layout = LAYOUTS[name]
    files = (layout.ratings, layout.movies)
    ratings_name, ratings, movies_name, movies = read_files(
        name, layout.folder, files, Path(data_dir)
    )
    interactions = _read_ratings(layout, name, ratings_name, ratings)
    notes = []
    if layout.num_ratings not in (None, len(interactions)):
        notes.append(
            f"{ratings_name} holds {len(interactions)} ratings, "
            f"the published file {layout.num_ratings}"
        )
    prompts = layout.read_movies(movies_name, movies, name)
    return Raw(name, interactions, prompts, tuple(notes))


def _read_ratings(layout: Layout, name: str, file: str, content: bytes) -> pl.DataFrame:
    fields = [_ID, _ID, _STARS, r"[0-9]{1,18}"]
    pattern = f"^{layout.separator.join(fields)}$"
    words = layout.separator.join(["UserID", "MovieID", "Rating", "Timestamp"])
    lines = split_lines(name, file, content, "latin-1")
    if layout.ratings.endswith(".csv"):
        lines = without_header(name, file, lines, "userId,movieId,rating,timestamp")
    check_lines(name, file, lines, pattern, words.replace("\t", " "))
    # All rows are checked, so '::' can be read as two ':' around an empty column.
    wide = len(layout.separator) == 2
    columns = [0, 2, 4, 6] if wide else [0, 1, 2, 3]
    types: dict[str, Any] = {f"{c}": pl.Int64 for c in range(7 if wide else 4)}
    types[f"{columns[2]}"] = pl.Float64
    frame = pl.read_csv(
        content,
        separator=layout.separator[0],
        has_header=False,
        skip_rows=int(layout.ratings.endswith(".csv")),
        columns=columns,
        schema=types,
    )
    frame.columns = ["user", "item", "rating", "time"]
    return frame


def _movies_dat(encoding: str) -> Callable[[str, bytes, str], pl.DataFrame]:
    def read(file: str, content: bytes, name: str) -> pl.DataFrame:
        pattern = rf"^({_ID})::(.*[^\s:].*)::([^:]*)$"
        lines = split_lines(name, file, content, encoding)
        check_lines(name, file, lines, pattern, "MovieID::Title::Genres")
        parts = lines.str.extract_groups(pattern).struct.unnest()
        return _prompts(parts["1"], parts["2"], parts["3"])

    return read


def _movies_csv(file: str, content: bytes, name: str) -> pl.DataFrame:
    try:
        frame = pl.read_csv(io.BytesIO(content), infer_schema=False)
    except pl.exceptions.NoDataError:
        raise InputError(f"{file}: the file is empty: {again(name)}") from None
    except pl.exceptions.PolarsError as error:
        reason = " ".join(str(error).split())[:120]
        raise InputError(
            f"{file}: is not a table of movies ({reason}): repair it, or {again(name)}"
        ) from error
    if frame.columns != ["movieId", "title", "genres"] or frame.is_empty():
        raise InputError(
            f"{file}: has columns {', '.join(frame.columns)} and {len(frame)} rows, "
            f"not movieId, title and genres: {again(name)}"
        )
    ids = frame["movieId"].cast(pl.Int64, strict=False)
    if ids.null_count() or frame["title"].null_count():
        row = (ids.is_null() | frame["title"].is_null()).arg_max() or 0
        raise InputError(
            f"{file}: row {row + 1} is {frame.row(row)}, not movieId, title and "
            f"genres: repair it, or {again(name)}"
        )
    return _prompts(ids, frame["title"], frame["genres"].fill_null(""))


def _movies_100k(file: str, content: bytes, name: str) -> pl.DataFrame:
    pattern = rf"^({_ID})\|([^|]*[^|\s][^|]*)\|[^|]*\|[^|]*\|[^|]*((?:\|[01]){{19}})$"
    lines = split_lines(name, file, content, "latin-1")
    check_lines(name, file, lines, pattern, "MovieID|Title|...|19 genre flags")
    parts = lines.str.extract_groups(pattern).struct.unnest()
    genres = [
        "|".join(
            genre
            for genre, flag in zip(_GENRES_100K, flags.split("|")[1:], strict=True)
            if flag == "1" and genre != "unknown"
        )
        for flags in parts["3"]
    ]
    return _prompts(parts["1"], parts["2"], pl.Series(genres, dtype=pl.String))


def _prompts(ids: pl.Series, titles: pl.Series, genres: pl.Series) -> pl.DataFrame:
    listed = pl.DataFrame({"item": ids, "title": titles, "genres": genres})
    title = pl.col("title").str.strip_chars()
    listing = (
        pl.col("genres")
        .str.strip_chars()
        .replace(_NO_GENRES, "")
        .str.replace_all("|", ", ", literal=True)
    )
    return listed.select(
        item=pl.col("item").cast(pl.Int64),
        text=pl.format("Title: {}.", title)
        + pl.when(listing == "")
        .then(pl.lit(""))
        .otherwise(pl.format(" Genres: {}.", listing)),
    )


LAYOUTS: dict[str, Layout] = {
    "ml-100k": Layout(
        "ml-100k", "u.data", "u.item", "\t", _movies_100k, 100_000,
        "0e33842e24a9c977be4e0107933c0723",
    ),
    "ml-1m": Layout(
        "ml-1m", "ratings.dat", "movies.dat", "::", _movies_dat("latin-1"), 1_000_209,
        "c4d9eecfca2ab87c1945afe126590906",
    ),
    "ml-10m": Layout(
        "ml-10M100K", "ratings.dat", "movies.dat", "::", _movies_dat("utf-8"),
        10_000_054, "ce571fd55effeba0271552578f2648bd",
    ),
    "ml-20m": Layout(
        "ml-20m", "ratings.csv", "movies.csv", ",", _movies_csv, 20_000_263,
        "cd245b17a1ae2cc31bb14903e1204af3",
    ),
    "ml-25m": Layout(
        "ml-25m", "ratings.csv", "movies.csv", ",", _movies_csv, 25_000_095,
        "6b51fb2759a8657d3bfcbfc42b592ada",
    ),
    "ml-32m": Layout(
        "ml-32m", "ratings.csv", "movies.csv", ",", _movies_csv, 32_000_204, None,
    ),
    "ml-latest-small": Layout(
        "ml-latest-small", "ratings.csv", "movies.csv", ",", _movies_csv, None, None,
    ),
}  # fmt: skip
"""The layouts by the name of their data set."""


def movielens_sources(name: str, data_dir: str | os.PathLike[str]) -> list[Path]:
    """Returns the files that a data set is read from: two files, or the archive.

    Raises:
      InputError: if there are none, with the address to download them from.
    """
    layout = LAYOUTS[name]
    files = (layout.ratings, layout.movies)
    return find_files(name, layout.folder, files, Path(data_dir))
