"""What a data set is read from, what of it counts, and how it is evaluated."""

import dataclasses
import math

from fedpeft_jax.core.errors import InputError
from fedpeft_jax.core.settings import check_fields, setting

SPLITS = ("time", "file", "random", "given", "time_cut")

# Settings that only some data sets know what to do with.
_TABLE = (
    *("interactions", "valid_interactions", "test_interactions", "items"),
    *("user_column", "item_column", "time_column", "rating_column", "text_columns"),
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataSettings:
    """Settings of the data and of the protocol; `RunConfig` has them all.

    Raises:
      InputError: for a value that is not allowed, or a combination that cannot work.

    Example:
      >>> DataSettings(dataset="ml-1m", data_dir="data", k_core=5).split
      'time'
    """

    dataset: str = setting("synthetic", "data set, by its name; --list shows them")
    data_dir: str | None = setting(None, "folder of the data set's files")
    download: bool = setting(False, "fetch the files into data_dir if they are missing")
    category: str | None = setting(None, "of the Amazon reviews, e.g. Software")

    interactions: str | None = setting(
        None, "file of a table: csv, tsv, parquet, inter"
    )
    valid_interactions: str | None = setting(
        None, "with --split=given: validation file"
    )
    test_interactions: str | None = setting(None, "with --split=given: test file")
    items: str | None = setting(None, "file with the text of a table's items")
    user_column: str | None = setting(None, "of the table; found by its name if it can")
    item_column: str | None = setting(None, "of the table, and of the items' file")
    time_column: str | None = setting(None, "of the table, or 'none'")
    rating_column: str | None = setting(None, "of the table, or 'none'")
    text_columns: str | None = setting(
        None, "of the items' file, with commas; all but the item column if left out"
    )

    min_rating: float | None = setting(None, "leave out interactions rated lower")
    min_interactions: int = setting(0, "leave out users with fewer items", least=0)
    k_core: int = setting(
        0, "leave out users and items with fewer, until none is left", least=0
    )
    repeated_pairs: str = setting(
        "earliest", "which time a repeated pair keeps", ("earliest", "latest")
    )
    catalogue: str = setting(
        "interacted",
        "items in the catalogue: with an interaction, all that are listed with text, "
        "or every integer from 1 to the largest id",
        ("interacted", "listed", "slots"),
    )
    cache: bool = setting(True, "keep prepared data in the user's cache folder")

    split: str = setting("time", "which interactions are held out", SPLITS)
    valid_items: int = setting(1, "validation items a user, 1 or 0", least=0)
    time_cut: float = setting(
        0.9, "with --split=time_cut: share of the interactions before the cut"
    )
    data_seed: int = setting(
        0, "seed of candidates, random splits and generated data", least=0
    )
    candidates: str = setting(
        "uniform", "how sampled negatives are drawn", ("uniform", "popularity")
    )
    num_candidates: int = setting(100, "negatives in the sampled ranking", least=1)
    train_negatives: str = setting(
        "unseen_in_training",
        "what training negatives are drawn outside of; 'unseen' leaves out held-out "
        "items too, which tells the model what they are",
        ("unseen_in_training", "unseen"),
    )
    negative_draws: str = setting(
        "fresh", "training negatives: drawn anew for every participation, or once",
        ("fresh", "fixed"),
    )  # fmt: skip
    negative_slots: int = setting(
        0, "draw negatives and candidates from the first so many items; 0: all", least=0
    )

    def __post_init__(self) -> None:
        check_fields(self)
        check_data_settings(self)

    def of_data(self) -> "DataSettings":
        """Returns the data settings alone."""
        fields = dataclasses.fields(DataSettings)
        return DataSettings(**{f.name: getattr(self, f.name) for f in fields})


def check_data_settings(settings: DataSettings) -> None:
    """Raises InputError for settings that no data set can be read or split by."""
    if settings.valid_items > 1:
        raise InputError(
            f"valid_items={settings.valid_items}: a user has one validation item, or 0"
        )
    if not 0 < settings.time_cut < 1:
        raise InputError(
            f"time_cut={settings.time_cut} is no share: it must be above 0 and below 1"
        )
    if settings.min_rating is not None and not math.isfinite(settings.min_rating):
        raise InputError(f"min_rating={settings.min_rating} must be finite")
    given = {name: getattr(settings, name) for name in _TABLE}
    if settings.dataset != "table":
        for name, value in given.items():
            if value is not None:
                raise InputError(
                    f"{name}={value!r} is of --dataset=table, and this is "
                    f"{settings.dataset}: leave it out"
                )
    elif settings.data_dir is not None:
        raise InputError(
            f"data_dir={settings.data_dir!r} has no effect with --dataset=table: name "
            "the file with --interactions"
        )
    pieces = [n for n in ("valid_interactions", "test_interactions") if given[n]]
    if settings.split == "given" and "test_interactions" not in pieces:
        raise InputError("split=given needs files: set --test_interactions=FILE")
    if settings.split != "given" and pieces:
        raise InputError(
            f"{pieces[0]} needs --split=given, and this is {settings.split}"
        )
