"""Tests of readers/amazon.py on small files in both layouts, and on real files."""

import gzip
import json

import pytest

from fedpeft_jax.core.errors import InputError
from fedpeft_jax.data import load_dataset
from fedpeft_jax.data.readers.amazon import read_amazon
from tests.data.helpers import REAL_DATA

REVIEWS_2018 = [
    {"reviewerID": "A1", "asin": "B1", "unixReviewTime": 30, "overall": 5.0,
     "reviewText": "long", "verified": True},
    {"reviewerID": "A1", "asin": "B2", "unixReviewTime": 10, "overall": 2.0},
    {"reviewerID": "A1", "asin": "B3", "unixReviewTime": 20, "overall": 4.0},
    {"reviewerID": "A2", "asin": "B3", "unixReviewTime": 20, "overall": 4.0},
]  # fmt: skip
ITEMS_2018 = [
    {"asin": "B1", "title": "Kite", "brand": "Acme", "category": ["Toys", "Outdoor"],
     "feature": [], "description": ["It flies.", ""], "price": "$3"},
    {"asin": "B2", "title": "Ball", "description": "Round"},
    {"asin": "B9", "title": "Not reviewed"},
]  # fmt: skip


def write(folder, name, rows, pack=True):
    content = "".join(json.dumps(row) + "\n" for row in rows).encode()
    path = folder / name
    path.write_bytes(gzip.compress(content) if pack else content)
    return path


@pytest.fixture
def folder(tmp_path):
    """A category of 2018."""
    write(tmp_path, "Toys_5.json.gz", REVIEWS_2018)
    write(tmp_path, "meta_Toys.json.gz", ITEMS_2018)
    return tmp_path


def load(folder, name="amazon-2018", **settings):
    settings = {"category": "Toys", "cache": False, **settings}
    return load_dataset(name, folder, **settings)


def check(data):
    assert data.user_ids.tolist() == ["A1", "A2"]
    assert data.item_ids.tolist() == ["B1", "B2", "B3"]
    assert [data.items.row(user).tolist() for user in (0, 1)] == [[1, 2, 0], [2]]
    assert data.item_text == (
        "Title: Kite. Brand: Acme. Category: Toys, Outdoor. Description: It flies.",
        "Title: Ball. Description: Round.",
        "",
    )
    assert "left out 1 of 3 listed items (no interaction)" in data.notes


def test_2018(folder):
    data = load(folder)
    assert data.name == "amazon-2018-Toys"
    check(data)


def test_files_that_are_unpacked(tmp_path):
    write(tmp_path, "Toys_5.json", REVIEWS_2018, pack=False)
    write(tmp_path, "meta_Toys.json", ITEMS_2018, pack=False)
    check(load(tmp_path))


def test_2023(tmp_path):
    reviews = [
        {"user_id": r["reviewerID"], "parent_asin": r["asin"], "asin": "other",
         "timestamp": 1000 * r["unixReviewTime"], "rating": r["overall"]}
        for r in REVIEWS_2018
    ]  # fmt: skip
    items = [
        {"parent_asin": "B1", "title": "Kite", "store": "Acme", "features": ["Red"],
         "categories": ["Toys"], "description": []},
        {"parent_asin": "B3", "title": None, "categories": []},
    ]  # fmt: skip
    write(tmp_path, "Toys.jsonl.gz", reviews)
    write(tmp_path, "meta_Toys.jsonl.gz", items)
    data = load(tmp_path, "amazon-2023")
    assert data.items.values.tolist() == [1, 2, 0, 2]
    assert data.times.tolist() == [10_000, 20_000, 30_000, 20_000]
    assert data.item_text[0] == (
        "Title: Kite. Store: Acme. Categories: Toys. Features: Red."
    )


def test_ratings_are_optional(folder):
    more = {**REVIEWS_2018[0], "asin": "B4", "overall": 3}
    write(folder, "Toys_5.json.gz", [*REVIEWS_2018, more])
    assert read_amazon("amazon-2018", folder, "Toys").interactions.width == 4
    kept = load(folder, min_rating=3)
    assert kept.item_ids.tolist() == ["B1", "B3", "B4"]
    assert kept.notes[0].startswith("min_rating=3 dropped 1 of 5 interactions")
    without = [{k: v for k, v in row.items() if k != "overall"} for row in REVIEWS_2018]
    write(folder, "Toys_5.json.gz", without)
    assert read_amazon("amazon-2018", folder, "Toys").interactions.width == 3
    with pytest.raises(InputError, match="needs ratings, and there are none"):
        load(folder, min_rating=3)
    write(folder, "Toys_5.json.gz", [*without, REVIEWS_2018[0]])
    with pytest.raises(InputError, match="4 of 5 interactions have no rating"):
        load(folder, min_rating=3)


def test_where_files_are_looked_for(folder, tmp_path):
    with pytest.raises(InputError, match=r"set `category` \(found: Toys\)"):
        load(folder, category=None)
    with pytest.raises(InputError, match=r"Books_5.json.gz: no such file: download it"):
        load(folder, category="Books")
    with pytest.raises(InputError, match="set `data_dir=DIR`"):
        load(None)
    (folder / "meta_Toys.json.gz").unlink()
    with pytest.raises(InputError, match=r"meta_Toys.json.gz: no such file"):
        load(folder)


def broken(row, **changes):
    return {**row, **changes}


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([broken(REVIEWS_2018[0], asin=None)], "no item id.*interaction 5"),
        ([broken(REVIEWS_2018[0], reviewerID="")], "no user id.*interaction 5"),
        ([broken(REVIEWS_2018[0], unixReviewTime=None)], "no time.*interaction 5"),
        ([broken(REVIEWS_2018[0], unixReviewTime=-1)], "negative or infinite time"),
        ([broken(REVIEWS_2018[0], unixReviewTime="now")], "time that is not a number"),
        ([broken(REVIEWS_2018[0], overall="good")], "rating that is not a number"),
        ([{"asin": "B1"}], "no user id.*interaction 5"),
        (["text"], "a line is not a JSON object"),
        ([[1, 2]], "a line is not a JSON object"),
        ([None], "a line is not a JSON object"),
    ],
)
def test_malformed_reviews(folder, rows, message):
    write(folder, "Toys_5.json.gz", [*REVIEWS_2018, *rows])
    with pytest.raises(InputError, match=message) as caught:
        load(folder)
    assert str(folder / "Toys_5.json.gz") in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["Toys_5.json.gz", "meta_Toys.json.gz"])
@pytest.mark.parametrize(
    "damage",
    [
        lambda b: b[: len(b) // 2],
        lambda b: b[:-4],
        lambda b: b[:60] + bytes([b[60] ^ 255]) + b[61:],
        lambda b: b"",
        lambda b: gzip.compress(b""),
        lambda b: gzip.compress(b'{"asin": "\xff"}\n'),
        lambda b: gzip.compress(b'{"other": 1}\n'),
        lambda b: gzip.compress(b'{"asin": "B1"'),
    ],
)
def test_damaged_files(folder, name, damage):
    path = folder / name
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(InputError) as caught:
        load(folder)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("category", "pairs", "users", "items"),
    [
        ("Software", 11_957 - 73, 1_826, 802),
        ("Industrial_and_Scientific", 69_695, 10_544, 5_318),
    ],
)
def test_the_real_files(category, pairs, users, items):
    if not (REAL_DATA / f"{category}_5.json.gz").exists():
        pytest.skip(f"{category}_5.json.gz is not in ../shared/data")
    data = load(REAL_DATA, category=category)
    found = (len(data.items.values), data.num_users, data.num_items)
    assert found == (pairs, users, items)
    titled = [text.startswith("Title: ") for text in data.item_text if text]
    assert sum(titled) > 0.99 * len(titled)
    if category == "Software":
        assert "dropped 73 repeated pairs (kept the earliest)" in data.notes
