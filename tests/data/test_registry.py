"""Tests of registry.py: the settings that a data set can use, and its addresses."""

import pytest

from fedpeft_jax.core.errors import InputError
from fedpeft_jax.data import DATASETS, DataSettings, check_source


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"dataset": "nope"}, "`dataset='nope'` is not known: .*synthetic.*ml-1m"),
        ({"data_dir": "x"}, "`data_dir='x'` has no effect: data set 'synthetic' reads"),
        (
            {"fetch": True},
            "`fetch` has no effect: .*'synthetic' is not published",
        ),
        ({"category": "Software"}, "`category='Software'` needs Amazon reviews"),
        (
            {"dataset": "ml-1m", "split": "given"},
            "set `test_interactions=FILE`",  # which needs a table in turn
        ),
    ],
)
def test_settings_that_have_no_effect(settings, message):
    with pytest.raises(InputError, match=message):
        check_source(DataSettings(**settings))


@pytest.mark.parametrize("name", DATASETS)
def test_every_data_set_can_be_checked(name):
    check_source(DataSettings(dataset=name))


@pytest.mark.parametrize("name", [n for n, s in DATASETS.items() if s.published])
def test_published_files_have_addresses(name):
    category = "Software" if name.startswith("amazon") else None
    source = DATASETS[name]
    settings = DataSettings(dataset=name, category=category, data_dir="x")
    for file in source.published(settings):
        assert file.urls and all(file.name in url for url in file.urls)
        assert source.page and source.licence


def test_a_category_is_needed_to_download():
    settings = DataSettings(dataset="amazon-2018")
    with pytest.raises(InputError, match="set `category`, for example"):
        DATASETS["amazon-2018"].published(settings)
