"""Reads Amazon reviews of any category, without loading the text of the reviews.

2018: Ni et al., "Justifying recommendations using distantly-labeled reviews and
fine-grained aspects" (EMNLP 2019), https://nijianmo.github.io/amazon/. 2023: Hou et
al., "Bridging language and items for retrieval and recommendation" (arXiv 2403.03952),
https://amazon-reviews-2023.github.io/.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl

from fedpeft_jax.core.errors import InputError
from fedpeft_jax.data.readers.files import check_ratio, is_file, open_file, reading
from fedpeft_jax.data.readers.ids import as_ids
from fedpeft_jax.data.readers.raw import Raw, as_ratings, prompt
from fedpeft_jax.data.readers.times import as_times


class Layout(NamedTuple):
    """The file layout of an edition.

    Attributes:
      page: the web page of the edition.
      reviews: the name of a category's file of reviews.
      items: the name of a category's file of items.
      user: the field of the reviewer.
      item: the field of the item.
      time: the field of the time.
      rating: the field of the rating, which may be missing.
      text: the fields of an item that its prompt is made of.
    """

    page: str
    reviews: str
    items: str
    user: str
    item: str
    time: str
    rating: str
    text: tuple[str, ...]


LAYOUTS = {
    "amazon-2018": Layout(
        page="https://nijianmo.github.io/amazon/",
        reviews="{}_5.json.gz",
        items="meta_{}.json.gz",
        user="reviewerID",
        item="asin",
        time="unixReviewTime",
        rating="overall",
        text=("title", "brand", "category", "feature", "description"),
    ),
    "amazon-2023": Layout(
        page="https://amazon-reviews-2023.github.io/",
        reviews="{}.jsonl.gz",
        items="meta_{}.jsonl.gz",
        user="user_id",
        item="parent_asin",
        time="timestamp",
        rating="rating",
        text=("title", "store", "categories", "features", "description"),
    ),
}
"""The editions by the name of their data set."""

_MOST_LETTERS = 1000  # per attribute: encoders read a few hundred words


def amazon_sources(name: str, data_dir: str | Path, category: str | None) -> list[Path]:
    """Returns the two files of a category, with or without ``.gz``.

    Raises:
      InputError: without a category, or if a file is missing.
    """
    layout, folder = LAYOUTS[name], Path(data_dir)
    if category is None:
        held = sorted(
            path.name[len("meta_") :].partition(".")[0]
            for path in folder.glob(layout.items.format("*") + "*")
        )
        raise InputError(
            f"{name} has many categories: set `category`"
            + (f" (found: {', '.join(held)})" if held else ", such as Software")
        )
    check_category(category)
    found = []
    for form in (layout.reviews, layout.items):
        path = folder / form.format(category)
        plain = path.with_suffix("")
        if not is_file(path) and is_file(plain):
            path = plain
        if not is_file(path):
            raise InputError(
                f"{path}: no such file: download it from {layout.page} and set "
                "`data_dir` to its folder, or set `fetch`"
            )
        found.append(path)
    return found


def check_category(category: str) -> None:
    """Raises InputError if a category cannot be a part of the name of a file."""
    if (
        not category.isprintable()
        or len(category) > 100
        or any(sign in category for sign in "/\\:")
    ):
        raise InputError(
            f"`category={category[:80]!r}` is no category: use a part of the names of "
            "the files, such as Software"
        )


def read_amazon(name: str, data_dir: str | Path, category: str | None) -> Raw:
    """Reads a category. Every review is an interaction, whatever its rating.

    Args:
      name: ``'amazon-2018'`` or ``'amazon-2023'``.
      data_dir: the folder of the files.
      category: the category as it is written in the names of the files.

    Returns:
      The interactions, with a column ``rating`` if any review has a rating. Prompts
      contain title, brand or store, categories, features and description of the item;
      missing ones are left out.

    Raises:
      InputError: for files that are missing, truncated, damaged or malformed.

    Example:
      >>> import gzip, tempfile
      >>> folder = Path(tempfile.mkdtemp())
      >>> review = b'{"reviewerID": "A1", "asin": "B7", "unixReviewTime": 9}'
      >>> _ = (folder / "Toys_5.json.gz").write_bytes(gzip.compress(review))
      >>> item = b'{"asin": "B7", "title": "Kite", "category": ["Toys", "Outdoor"]}'
      >>> _ = (folder / "meta_Toys.json.gz").write_bytes(gzip.compress(item))
      >>> raw = read_amazon("amazon-2018", folder, "Toys")
      >>> raw.interactions.row(0), raw.item_text["text"][0]
      (('A1', 'B7', 9), 'Title: Kite. Category: Toys, Outdoor.')
    """
    layout = LAYOUTS[name]
    reviews, items = amazon_sources(name, data_dir, category)
    fields = (layout.user, layout.item, layout.time, layout.rating)
    frame = _read(reviews, fields)
    columns = {
        "user": as_ids(str(reviews), "user", frame[layout.user]),
        "item": as_ids(str(reviews), "item", frame[layout.item]),
        "time": as_times(str(reviews), frame[layout.time]),
    }
    ratings = as_ratings(str(reviews), frame[layout.rating])
    if ratings.null_count() < len(ratings):
        columns["rating"] = ratings
    interactions = pl.DataFrame(columns)
    listed = _read(items, (layout.item, *layout.text))
    ids = as_ids(str(items), "item", listed[layout.item], "items")
    # The files list millions of items; prompts are written for reviewed items only.
    needed = ids.is_in(interactions["item"].unique().implode())
    listed = listed.with_columns(ids)
    texts = [
        prompt(
            (part, _value(value)) for part, value in zip(layout.text, row, strict=True)
        )
        if wanted
        else ""
        for wanted, row in zip(
            needed, listed.select(layout.text).iter_rows(), strict=True
        )
    ]
    text = pl.DataFrame({"item": ids, "text": texts})
    return Raw(f"{name}-{category}", interactions, text)


def _read(path: Path, fields: tuple[str, ...]) -> pl.DataFrame:
    """Reads some fields of a file of JSON lines into columns of strings."""
    schema = dict.fromkeys(fields, pl.String)
    try:
        with reading(path):
            check_ratio(path)
            # Polars decompresses gzip, and checks its checksum.
            with open_file(path) as file:
                frame = pl.scan_ndjson(file, schema=schema).collect(engine="streaming")
    except pl.exceptions.PolarsError as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(
            f"{path}: a line is not a JSON object ({reason}): download the file again"
        ) from error
    if frame.is_empty():
        raise InputError(f"{path}: the file is empty: download it again")
    missing = [f for f in fields[:3] if frame[f].null_count() == len(frame)]
    if missing and fields[0] in missing:
        raise InputError(
            f"{path}: no line has {missing[0]!r}: check that the file is of this "
            "edition"
        )
    return frame


def _value(text: str | None) -> Any:
    """Returns the value of a field: a string, or a list that is written as JSON."""
    if text and text.startswith("["):
        try:
            listed = json.loads(text)
        except ValueError:
            return text[:_MOST_LETTERS]
        return [part[:_MOST_LETTERS] for part in _flat(listed)]
    return (text or "")[:_MOST_LETTERS]


def _flat(parts: Any) -> Iterator[str]:
    for part in parts:
        if isinstance(part, list):
            yield from _flat(part)
        elif part is not None:
            yield str(part)
