"""The settings that determine how a data set is read, filtered and split."""

import dataclasses

from fedpeft_jax.core.bounds import MOST_INT
from fedpeft_jax.core.errors import InputError
from fedpeft_jax.core.settings import check_fields, setting

SPLITS = ("time", "file", "random", "given", "time_cut")

# Settings that need `dataset=table`.
_TABLE = (
    *("interactions", "valid_interactions", "test_interactions", "items"),
    *("user_column", "item_column", "time_column", "rating_column", "text_columns"),
    "items_id_column",
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataSettings:
    """Settings of the data: what is read, which part of it is used, and the split.

    Raises:
      InputError: for a value that is not allowed, or a combination that cannot work.

    Example:
      >>> DataSettings(dataset="ml-1m", data_dir="data", k_core=5).split
      'time'
    """

    dataset: str = setting(
        "synthetic", "name of the data set, such as synthetic, ml-1m or table"
    )
    data_dir: str | None = setting(None, "folder of the data set's files")
    fetch: bool = setting(False, "download missing files into `data_dir`")
    category: str | None = setting(
        None, "category of the Amazon reviews, such as Software"
    )

    interactions: str | None = setting(
        None, "file of a table's interactions: csv, tsv, parquet or inter"
    )
    valid_interactions: str | None = setting(
        None, "file of the validation interactions, with `split=given`"
    )
    test_interactions: str | None = setting(
        None, "file of the test interactions, with `split=given`"
    )
    items: str | None = setting(None, "file with the text of a table's items")
    user_column: str | None = setting(
        None, "column of the user; found by its name if left out"
    )
    item_column: str | None = setting(
        None, "column of the item, in `interactions` and in `items`"
    )
    items_id_column: str | None = setting(
        None, "column of the item in `items`, if it has another name there"
    )
    time_column: str | None = setting(None, "column of the time, or 'none'")
    rating_column: str | None = setting(None, "column of the rating, or 'none'")
    text_columns: str | None = setting(
        None,
        "columns of `items` with text, separated by commas; all but the item column "
        "if left out",
    )

    min_rating: float | None = setting(
        None, "leave out interactions with a lower rating", least=-1e12, most=1e12
    )
    min_interactions: int = setting(
        0, "leave out users with fewer distinct items", least=0, most=MOST_INT
    )
    k_core: int = setting(
        0,
        "repeatedly leave out users and items with fewer partners",
        least=0,
        most=MOST_INT,
    )
    repeated_pairs: str = setting(
        "earliest",
        "which time a repeated pair of a user and an item keeps",
        choices=("earliest", "latest"),
    )
    catalogue: str = setting(
        "interacted",
        "items of the catalogue: those with an interaction, those listed with a text "
        "too, or every integer from 1 to the largest id",
        choices=("interacted", "listed", "slots"),
    )
    cache: bool = setting(True, "keep prepared data in the user's cache folder")

    split: str = setting("time", "which interactions are held out", choices=SPLITS)
    valid_items: int = setting(1, "validation items per user", least=0, most=1)
    time_cut: float = setting(
        0.9,
        "share of the interactions before the cut, with `split=time_cut`",
        above=0,
        below=1,
    )
    data_seed: int = setting(
        0, "seed of candidates, random splits and generated data", least=0, below=2**32
    )

    def __post_init__(self) -> None:
        check_fields(self)
        _check_combinations(self)


def _check_combinations(settings: DataSettings) -> None:
    """Raises InputError for settings that cannot work together."""
    given = {name: getattr(settings, name) for name in _TABLE}
    if settings.dataset != "table":
        for name, value in given.items():
            if value is not None:
                raise InputError(
                    f"`{name}={value!r}` needs `dataset=table`, and this is "
                    f"{settings.dataset}: leave it out"
                )
    elif settings.data_dir is not None:
        raise InputError(
            f"`data_dir={settings.data_dir!r}` has no effect with `dataset=table`: "
            "name the file with `interactions`"
        )
    held_out = [n for n in ("valid_interactions", "test_interactions") if given[n]]
    # Tables in memory have their held-out rows with them, see `from_frame`.
    in_memory = settings.dataset == "table" and settings.interactions is None
    needs_test = not in_memory or bool(held_out)
    if settings.split == "given" and needs_test and not given["test_interactions"]:
        raise InputError("`split=given` needs files: set `test_interactions=FILE`")
    if settings.split != "given" and held_out:
        raise InputError(
            f"`{held_out[0]}` needs `split=given`, and this is {settings.split}: "
            "leave it out"
        )
