"""Tests of settings.py: what is not allowed is refused before anything is read."""

import dataclasses
import re

import pytest

from fedpeft_jax.core.errors import InputError
from fedpeft_jax.data import DataSettings

NAMES = {field.name for field in dataclasses.fields(DataSettings)}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"dataset": "table", "data_dir": "x"}, "name the file with `interactions`"),
        ({"interactions": "x.csv"}, "`interactions='x.csv'` needs `dataset=table`"),
        (
            {"dataset": "table", "split": "given", "interactions": "x"},
            "set `test_interactions=FILE`",
        ),
        (
            {"dataset": "table", "split": "given", "valid_interactions": "x"},
            "set `test_interactions=FILE`",
        ),
        (
            {"dataset": "table", "test_interactions": "x"},
            "`test_interactions` needs `split=given`, and this is time",
        ),
        (
            {"dataset": "table", "valid_interactions": "x", "split": "file"},
            "`valid_interactions` needs `split=given`, and this is file",
        ),
        ({"split": "given", "dataset": "ml-1m"}, "set `test_interactions=FILE`"),
        ({"time_cut": 1.0}, "`time_cut=1.0` must be above 0 and below 1"),
        ({"valid_items": 2}, "`valid_items=2` must be at least 0 and at most 1"),
        ({"split": "weekly"}, "use one of time, file, random, given, time_cut"),
        ({"min_rating": float("nan")}, "`min_rating=nan` must be a finite number"),
        ({"k_core": -1}, "`k_core=-1` must be at least 0"),
        ({"min_interactions": -1}, "`min_interactions=-1` must be at least 0"),
        ({"data_seed": -1}, "`data_seed=-1` must be at least 0"),
        ({"catalogue": "all"}, "`catalogue='all'` is not known: use one of"),
        ({"repeated_pairs": "first"}, "`repeated_pairs='first'` is not known"),
    ],
)
def test_settings_that_cannot_work(settings, message):
    with pytest.raises(InputError, match=message):
        DataSettings(**settings)


def test_help_texts_name_settings_that_exist():
    for field in dataclasses.fields(DataSettings):
        text = field.metadata["help"]
        assert text and "--" not in text
        assert set(re.findall(r"`(\w+)", text)) <= NAMES
