"""Tests of readers/files.py: exact names, odd files, and files that unpack to much."""

import gzip
import io
import os
import zipfile

import polars as pl
import pytest

from fedpeft_jax.core.errors import InputError
from fedpeft_jax.data import load_dataset
from fedpeft_jax.data.readers.files import check_member, check_ratio, open_file, reading
from tests.data.helpers import with_size

ROWS = "user,item,time\n" + "".join(f"u,{item},{item}\n" for item in range(4))
DECOY = "user,item,time\n" + "".join(f"wrong,{item},1\n" for item in range(4))


def write(path, rows):
    if path.name.endswith(".parquet"):
        with path.open("wb") as file:
            pl.read_csv(io.StringIO(rows)).write_parquet(file)
    elif path.name.endswith(".gz"):
        path.write_bytes(gzip.compress(rows.encode()))
    elif path.name.endswith(".dat"):
        path.write_text(rows.replace(",", "::"))
    else:
        path.write_text(rows)


@pytest.mark.parametrize("end", ["csv", "tsv.gz", "parquet", "dat"])
@pytest.mark.parametrize(
    ("name", "decoy"),
    [("log[1]", "log1"), ("log*", "log2"), ("log?", "log3"), ("log[!a]", "logb")],
)
def test_a_path_is_no_pattern(tmp_path, monkeypatch, end, name, decoy):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / f"cache {name}"))
    write(tmp_path / f"{decoy}.{end}", DECOY)
    path = tmp_path / f"{name}.{end}"
    with pytest.raises(InputError, match="no such file"):
        load_dataset("table", interactions=str(path))
    write(path, ROWS)
    for _ in range(2):  # the second time from the cache
        data = load_dataset("table", interactions=str(path))
        assert data.user_ids.tolist() == ["u"]
    [folder] = (tmp_path / f"cache {name}" / "fedpeft_jax" / "datasets").iterdir()
    assert (folder / "users.parquet").is_file()


def test_a_folder_is_no_pattern(tmp_path):
    for folder, user in (("a[1]", "u"), ("a1", "wrong")):
        (tmp_path / folder).mkdir()
        review = '{{"reviewerID": "{}", "asin": "{}", "unixReviewTime": 9}}\n'
        rows = "".join(review.format(user, item) for item in range(4))
        (tmp_path / folder / "Toys_5.json.gz").write_bytes(gzip.compress(rows.encode()))
        (tmp_path / folder / "meta_Toys.json").write_text('{"asin": "0"}\n')
    data = load_dataset("amazon-2018", tmp_path / "a[1]", category="Toys", cache=False)
    assert data.user_ids.tolist() == ["u"]


def test_files_that_cannot_be_read(tmp_path):
    (tmp_path / "folder").mkdir()
    with pytest.raises(InputError, match=r"is a folder: name a file in it"):
        open_file(tmp_path / "folder")
    with pytest.raises(InputError, match="is a pipe or a device"):
        open_file("/dev/null")
    with (
        pytest.raises(
            InputError, match=r"line: cannot be read \(Is a directory\)"
        ) as e,
        reading("a\nline"),
    ):
        os.open(tmp_path / "folder", os.O_WRONLY)
    assert "\n" not in str(e.value)


@pytest.mark.parametrize("kind", ["folder", "loop", "long"])
@pytest.mark.parametrize("what", ["interactions", "items", "data_dir"])
def test_every_unreadable_path_is_one_error(tmp_path, kind, what):
    path = tmp_path / ("a" * 300 if kind == "long" else "there")
    if kind == "folder":
        path.mkdir()
    elif kind == "loop":
        path.symlink_to(path)
    (tmp_path / "log.csv").write_text(ROWS)
    settings = {"interactions": str(tmp_path / "log.csv"), what: str(path)}
    name = "table"
    if what == "data_dir":
        name, settings = "ml-1m", {what: str(path)}
    with pytest.raises(InputError) as caught:
        load_dataset(name, **settings)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_a_source_that_cannot_be_read_is_one_error(tmp_path):
    folder = tmp_path / "ml-1m"
    folder.mkdir()
    (folder / "ratings.dat").write_text("1::1::1::1\n")
    (folder / "movies.dat").symlink_to("/proc/self/mem")  # a file that fails to read
    with pytest.raises(InputError, match=r"movies.dat: cannot be read \(Input/output"):
        load_dataset("ml-1m", tmp_path)


def test_a_small_file_may_not_unpack_to_much(tmp_path):
    path = tmp_path / "log.csv.gz"
    path.write_bytes(gzip.compress(ROWS.encode() + b"u,1,1\n" * 12_000_000, 1))
    with pytest.raises(InputError, match="unpacks to more than 200 times its size"):
        load_dataset("table", interactions=str(path), cache=False)
    path.write_bytes(gzip.compress(os.urandom(1 << 20), 1))
    check_ratio(path)


def test_a_member_has_a_bound(tmp_path):
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("ml-1m/ratings.dat", b"0" * 1000)
    packed = with_size(packed.getvalue(), (2 << 30) + 1)
    (tmp_path / "ml-1m.zip").write_bytes(packed)
    with pytest.raises(InputError, match=r"ratings.dat' unpacks to 2147483649 bytes"):
        load_dataset("ml-1m", tmp_path, cache=False)


@pytest.mark.parametrize("name", ["../x", "a/../../x", "/x", "a\\..\\x", "\\x"])
def test_a_member_stays_in_its_folder(name):
    with pytest.raises(InputError, match="leads out of the folder"):
        check_member("x.zip", zipfile.ZipInfo(name))
    check_member("x.zip", zipfile.ZipInfo("a/..b/c..d"))
