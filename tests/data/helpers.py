"""Small data sets by hand, and the comparison of two data sets."""

import dataclasses
import pathlib
import struct

import numpy as np
import polars as pl

from fedpeft_jax.core.ragged import Ragged
from fedpeft_jax.data import Dataset, DataSettings, Raw, build

REAL_DATA = pathlib.Path(__file__).parents[2].parent / "shared" / "data"


def make_dataset(histories, num_items, first_user=0):
    """A data set with exactly these histories."""
    return Dataset(
        name="made",
        user_ids=np.arange(len(histories)) + first_user,
        item_ids=np.arange(num_items),
        items=Ragged.from_rows(histories),
        item_text=None,
    )


def build_rows(rows, item_text=None, **settings):
    """The data set of (user, item, time) rows."""
    frame = pl.DataFrame(rows, schema=["user", "item", "time"], orient="row")
    return build(Raw("tiny", frame, item_text), DataSettings(**settings))


def history(data, user):
    """Original item ids of an original user id, in time order."""
    row = data.user_ids.tolist().index(user)
    return data.item_ids[data.items.row(row)].tolist()


def assert_same_array(one, two, name=""):
    """Two arrays have the same type and values; or both are None."""
    assert (one is None) == (two is None), name
    if one is not None:
        assert one.dtype == two.dtype, name
        np.testing.assert_array_equal(one, two, err_msg=name)


def assert_same(one, two):
    """Two data sets are equal in everything but their names and notes."""
    assert one.item_text == two.item_text
    assert_same_array(one.items.values, two.items.values, "items.values")
    assert_same_array(one.items.offsets, two.items.offsets, "items.offsets")
    compared = {"name", "notes", "item_text", "items"}
    for field in {field.name for field in dataclasses.fields(Dataset)} - compared:
        assert_same_array(getattr(one, field), getattr(two, field), field)


def with_size(archive, size):
    """A zip archive whose first member states that it unpacks to this size."""
    changed = bytearray(archive)
    for mark, place in ((b"PK\x03\x04", 22), (b"PK\x01\x02", 24)):
        start = changed.index(mark) + place
        changed[start : start + 4] = struct.pack("<I", size)
    return bytes(changed)
