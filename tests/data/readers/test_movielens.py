"""Tests of readers/movielens.py on small files, and on the real MovieLens-1M."""

import zipfile
from pathlib import Path

import numpy as np
import pytest

from fedpeft_jax.core.errors import InputError
from fedpeft_jax.data import leave_one_out, load_dataset
from fedpeft_jax.data.readers.movielens_files import page
from tests.data.helpers import REAL_DATA

URL = page("ml-1m")
REAL = REAL_DATA / "ml-1m.zip"
UNREADABLE = Path("/proc/self/mem")  # a file mode would not stop root

RATINGS = b"""\
1::10::1::300
1::2::5::100
1::33::3::200
1::2::4::50
2::10::2::7
"""
MOVIES = (
    b"2::Am\xe9lie: Le Film (2001)::Comedy|Romance\n"
    b"3::Never Rated (1999)::Drama\n"
    b"10::Twice::Told (1990)::Children's\n"
    b"33::  No Genre (1970) ::\n"
)


def unpack(folder: Path, ratings: bytes = RATINGS, movies: bytes = MOVIES) -> Path:
    """Writes the two files that are read."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "ratings.dat").write_bytes(ratings)
    (folder / "movies.dat").write_bytes(movies)
    return folder


def pack(path: Path, prefix: str = "ml-1m/", **members: bytes) -> Path:
    """Writes an archive of the given members (without their suffix)."""
    members = members or {"ratings": RATINGS, "movies": MOVIES}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(f"{prefix}{name}.dat", content)
    return path


def load(path):
    """MovieLens-1M, read anew."""
    return load_dataset("ml-1m", path, cache=False)


def refusal(path: Path) -> str:
    """The one-line message that loading is refused with."""
    with pytest.raises(InputError) as caught:
        load(path)
    message = str(caught.value)
    assert "\n" not in message and URL in message
    return message


def check(data):
    assert data.name == "ml-1m"
    assert data.user_ids.tolist() == [1, 2]
    assert data.item_ids.tolist() == [2, 10, 33]
    assert data.items.values.tolist() == [0, 2, 1, 1]
    assert data.item_text == (
        "Title: Amélie: Le Film (2001). Genres: Comedy, Romance.",
        "Title: Twice::Told (1990). Genres: Children's.",
        "Title: No Genre (1970).",
    )
    assert "dropped 1 repeated pairs (kept the earliest)" in data.notes
    assert "left out 1 of 4 listed items (no interaction)" in data.notes
    assert any("holds 5 ratings, the published file 1000209" in n for n in data.notes)


def test_every_place_the_files_may_lie(tmp_path):
    unpack(tmp_path / "unpacked" / "ml-1m")
    (tmp_path / "packed").mkdir()
    pack(tmp_path / "packed" / "ml-1m.zip")
    pack(tmp_path / "flat.zip", prefix="")
    for place in (
        tmp_path / "unpacked",
        tmp_path / "unpacked" / "ml-1m",
        tmp_path / "packed",
        tmp_path / "packed" / "ml-1m.zip",
        tmp_path / "flat.zip",
    ):
        check(load(place))
        check(load(str(place)))


def test_line_ends_make_no_difference(tmp_path):
    check(load(unpack(tmp_path / "a", RATINGS[:-1], MOVIES[:-1])))
    crlf = (content.replace(b"\n", b"\r\n") for content in (RATINGS, MOVIES))
    check(load(unpack(tmp_path / "b", *crlf)))


def test_ties_keep_file_order(tmp_path):
    ratings = b"".join(b"1::%d::3::77\n" % movie for movie in (33, 2, 10))
    assert load(unpack(tmp_path, ratings)).items.values.tolist() == [2, 0, 1]


def test_movie_that_is_not_listed_has_no_text(tmp_path):
    data = load(unpack(tmp_path, RATINGS + b"2::44::5::9\n"))
    assert data.item_ids[3] == 44 and data.item_text[3] == ""
    assert "1 of 4 items have no text" in data.notes


def test_no_such_path(tmp_path):
    message = refusal(tmp_path / "nowhere")
    assert str(tmp_path / "nowhere") in message and "no such file" in message


def test_folder_without_the_files(tmp_path):
    message = refusal(tmp_path)
    for name in (str(tmp_path), "ml-1m.zip", "ml-1m/ratings.dat", "fetch"):
        assert name in message


def test_folder_with_one_of_two_files(tmp_path):
    (unpack(tmp_path / "ml-1m") / "movies.dat").unlink()
    pack(tmp_path / "ml-1m.zip")  # no silent mixture of folder and archive
    assert f"{tmp_path / 'ml-1m' / 'movies.dat'}: no such file" in refusal(tmp_path)


@pytest.mark.parametrize("kept", [0.0, 0.3, 0.9])
def test_truncated_archive(tmp_path, kept):
    path = pack(tmp_path / "ml-1m.zip")
    content = path.read_bytes()
    path.write_bytes(content[: int(kept * len(content))])
    message = refusal(tmp_path)
    assert message.startswith(f"{path}: truncated, damaged or not a zip file")


def test_archive_with_a_flipped_byte(tmp_path):
    path = pack(tmp_path / "ml-1m.zip")
    content = bytearray(path.read_bytes())
    content[60] ^= 0xFF  # inside the compressed ratings
    path.write_bytes(content)
    assert refusal(path).startswith(f"{path}: truncated, damaged or not a zip file")


def test_not_an_archive(tmp_path):
    path = tmp_path / "ratings.csv"
    path.write_text("user,item\n1,2\n")
    assert refusal(path).startswith(f"{path}: truncated, damaged or not a zip file")


@pytest.mark.parametrize("missing", ["ratings", "movies"])
def test_archive_without_a_member(tmp_path, missing):
    members = {"ratings": RATINGS, "movies": MOVIES, "users": b""}
    del members[missing]
    path = pack(tmp_path / "ml-1m.zip", **members)
    assert refusal(path).startswith(f"{path}: has no member ml-1m/{missing}.dat")


@pytest.mark.parametrize(
    "row",
    [
        b"2::10::2",  # a cut last row
        b"2::10::2::",
        b"2::10::2::7::8",
        b"2::10::2::7:",
        b"2:10::2::7",
        b"2::10::good::7",
        b"x::10::2::7",
        b"2::-10::2::7",
        b"2,10,2,7",
        b" 2::10::2::7",
        b"",
        b"2::99999999999999999999::2::7",
        b"2::\xb2::2::7",  # a digit of Unicode, not of ASCII
    ],
)
def test_malformed_rating(tmp_path, row):
    rows = RATINGS.splitlines()
    rows[3:3] = [row]
    folder = unpack(tmp_path / "ml-1m", b"\n".join(rows) + b"\n")
    message = refusal(tmp_path)
    shown = repr(row.decode("latin-1"))
    assert message.startswith(f"{folder / 'ratings.dat'}: row 4 is {shown}, not UserID")


@pytest.mark.parametrize("row", [b"5::Title", b"x::Title::Drama", b"5::::Drama", b""])
def test_malformed_movie(tmp_path, row):
    path = pack(tmp_path / "x.zip", ratings=RATINGS, movies=MOVIES + row + b"\n")
    start = f"{path}:ml-1m/movies.dat: row 5 is {row.decode()!r}, not MovieID"
    assert refusal(path).startswith(start)


def test_long_malformed_row_is_shortened(tmp_path):
    unpack(tmp_path, RATINGS + b"x" * 10_000)
    assert "row 6 is 'xxx" in refusal(tmp_path) and len(refusal(tmp_path)) < 500


@pytest.mark.parametrize("empty", ["ratings", "movies"])
def test_empty_file(tmp_path, empty):
    unpack(tmp_path, **{empty: b""})
    message = refusal(tmp_path)
    assert message.startswith(f"{tmp_path / empty}.dat: the file is empty")


@pytest.mark.skipif(not UNREADABLE.is_file(), reason="needs the /proc of Linux")
@pytest.mark.parametrize("file", ["ratings.dat", "movies.dat"])
def test_unreadable_file(tmp_path, file):
    (unpack(tmp_path) / file).unlink()
    (tmp_path / file).symlink_to(UNREADABLE)
    with pytest.raises(InputError, match=f"{file}: cannot be read .Input/output"):
        load(tmp_path)


def test_too_short_histories_are_refused(tmp_path):
    with pytest.raises(InputError, match="ml-1m: none of the 1 users"):
        load(unpack(tmp_path, b"1::2::5::1\n1::10::5::2\n"))


@pytest.mark.skipif(not REAL.exists(), reason="ml-1m.zip is not in ../shared/data")
def test_the_published_file():
    data = load(REAL.parent)
    assert (len(data.items.values), data.num_users, data.num_items) == (
        1_000_209,
        6040,
        3706,
    )
    assert data.notes == ("left out 177 of 3883 listed items (no interaction)",)
    assert data.user_ids.tolist() == list(range(1, 6041)) and data.item_ids[-1] == 3952
    assert data.item_text is not None and "" not in data.item_text
    assert data.item_text[0] == (
        "Title: Toy Story (1995). Genres: Animation, Children's, Comedy."
    )
    assert any("é" in text for text in data.item_text)
    counts = leave_one_out(data).counts
    assert (counts.min(), counts.max(), np.median(counts)) == (18, 2312, 94)
