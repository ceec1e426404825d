"""Every MovieLens layout, with the same ratings, is the same data set."""

import itertools

import pytest

from fedpeft_jax.core.errors import InputError
from fedpeft_jax.data import DataSettings, load
from fedpeft_jax.data.readers.movielens import LAYOUTS
from tests.data.helpers import assert_same

PAIRS = [(1, 10, 300), (1, 2, 100), (1, 33, 200), (2, 10, 7), (12, 2, 5), (12, 10, 6)]
TITLES = {2: ("Amélie (2001)", ["Comedy", "Romance"]), 10: ("Up, Up (2009)", ["War"])}
TITLES[33] = ("No Genre (1970)", [])
GENRES = {"Comedy": 5, "Romance": 14, "War": 17}  # their places in u.item


def write(folder, name, ratings=None):
    """Writes the small data set as GroupLens would."""
    layout = LAYOUTS[name]
    place = folder / layout.folder
    place.mkdir(parents=True)
    rows = [
        layout.separator.join(map(str, (u, i, s, t)))
        for (u, i, t), s in zip(PAIRS, itertools.cycle([5, 3, 1]), strict=False)
    ]
    if layout.ratings.endswith(".csv"):
        rows = ["userId,movieId,rating,timestamp", *rows]
        movies = ["movieId,title,genres"]
        movies += [
            f'{i},"{title}",{"|".join(genres) or "(no genres listed)"}'
            for i, (title, genres) in TITLES.items()
        ]
    elif name == "ml-100k":
        movies = []
        for i, (title, genres) in TITLES.items():
            flags = ["0"] * 19
            for genre in genres or [None]:
                flags[GENRES.get(genre, 0)] = "1"
            movies.append("|".join([str(i), title, "01-Jan-1970", "", "url", *flags]))
    else:
        none = "(no genres listed)" if name == "ml-10m" else ""
        movies = [
            f"{i}::{title}::{'|'.join(genres) or none}"
            for i, (title, genres) in TITLES.items()
        ]
    encoding = "latin-1" if name in ("ml-100k", "ml-1m") else "utf-8"
    text = "\n".join(rows if ratings is None else [*rows, ratings]) + "\n"
    (place / layout.ratings).write_text(text, encoding)
    (place / layout.movies).write_text("\n".join(movies) + "\n", encoding)
    return DataSettings(dataset=name, data_dir=str(folder), cache=False)


@pytest.mark.parametrize("name", LAYOUTS)
def test_the_same_ratings_are_the_same_data_set(tmp_path, name):
    data = load(write(tmp_path / "a", name))
    reference = load(write(tmp_path / "b", "ml-1m"))
    assert (
        data.item_text
        == reference.item_text
        == (
            "Title: Amélie (2001). Genres: Comedy, Romance.",
            "Title: Up, Up (2009). Genres: War.",
            "Title: No Genre (1970).",
        )
    )
    assert data.user_ids.tolist() == [1, 2, 12]
    assert_same(data, reference)
    published = LAYOUTS[name].num_ratings
    noted = any(f"the published file {published}" in note for note in data.notes)
    assert noted == (published is not None)


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_cut_row_is_refused(tmp_path, name):
    settings = write(tmp_path, name, ratings="12")
    with pytest.raises(InputError, match=f"row 7 is '12'.*{name}.zip"):
        load(settings)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("", "the file is empty"),
        ("userId,movieId\n1,2\n", "should have userId,movieId,rating,timestamp"),
        ("userId,movieId,rating,timestamp\n", "and then rows"),
    ],
)
def test_a_csv_needs_its_header_and_rows(tmp_path, content, says):
    settings = write(tmp_path, "ml-latest-small")
    (tmp_path / "ml-latest-small" / "ratings.csv").write_text(content)
    with pytest.raises(InputError, match=says):
        load(settings)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("", "the file is empty"),
        ("movieId,title\n2,Up\n", "has columns movieId, title"),
        ("movieId,title,genres\nx,Up,War\n", "row 1 is"),
        ("movieId,title,genres\n2,Up,War,Drama\n", "is not a table of movies"),
    ],
)
def test_damaged_movies(tmp_path, content, says):
    settings = write(tmp_path, "ml-latest-small")
    (tmp_path / "ml-latest-small" / "movies.csv").write_text(content)
    with pytest.raises(InputError, match=says):
        load(settings)
