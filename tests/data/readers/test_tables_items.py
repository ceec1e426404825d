"""Tests of the file of items of readers/tables.py, and of its catalogue."""

import polars as pl
import pytest

from fedpeft_jax.core.errors import InputError
from fedpeft_jax.data import load_dataset


def test_the_items_have_an_id_column_of_their_own(tmp_path):
    log, items = tmp_path / "log.csv", tmp_path / "items.csv"
    log.write_text("user,sku\nu,1\nu,2\nu,3\n")
    items.write_text("number,title\n1,Kite\n")
    files = {"interactions": str(log), "items": str(items), "cache": False}
    data = load_dataset("table", **files, item_column="sku", items_id_column="number")
    assert data.item_text == ("Title: Kite.", "", "")
    with pytest.raises(InputError) as caught:
        load_dataset("table", **files, item_column="sku")
    assert str(caught.value) == (
        f"{items}: no column has a common name of the item (found: number, title): set "
        "`items_id_column`"
    )
    with pytest.raises(
        InputError, match=r"'no' \(found: number, title\): set `items_id"
    ):
        load_dataset("table", **files, item_column="sku", items_id_column="no")
    items.write_text("sku,item,title\n1,7,Kite\n")  # the column of the interactions
    data = load_dataset("table", **files, item_column="sku")
    assert data.item_text == ("Item: 7. Title: Kite.", "", "")


@pytest.mark.parametrize("end", ["csv", "parquet"])
def test_items_of_ids_alone_have_no_text(tmp_path, end):
    log, items = tmp_path / "log.csv", tmp_path / f"items.{end}"
    log.write_text("user,item\nu,1\nu,2\nu,3\n")
    items.write_text("item\n1\n9\n")
    if end == "parquet":
        pl.DataFrame({"item": [1, 9]}).write_parquet(items)
    files = {"interactions": str(log), "items": str(items), "cache": False}
    data = load_dataset("table", **files, catalogue="listed")
    assert data.item_ids.tolist() == [1, 2, 3, 9] and data.item_text is None


def test_slots_of_large_ids_are_an_error(tmp_path):
    log = tmp_path / "log.csv"
    for largest in (10**12, 2**63 - 1):
        log.write_text(f"user,item\nu,1\nu,2\nu,{largest}\n")
        with pytest.raises(InputError, match=f"would make {largest} items of 3 ids"):
            load_dataset("table", interactions=str(log), catalogue="slots", cache=False)
    log.write_text("user,item\nu,1\nu,2\nu,x\n")
    with pytest.raises(InputError, match="needs item ids that are integers from 1"):
        load_dataset("table", interactions=str(log), catalogue="slots", cache=False)
