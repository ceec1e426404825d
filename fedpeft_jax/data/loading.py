"""Loads a data set: by its name from files, or from tables in memory."""

import dataclasses
import functools
import os
from collections.abc import Callable
from typing import Any

from fedpeft_jax.core.cache_folder import Note
from fedpeft_jax.core.errors import InputError
from fedpeft_jax.data.dataset import Dataset, build
from fedpeft_jax.data.prepared import cached
from fedpeft_jax.data.readers.candidate_lists import read_candidates_frame
from fedpeft_jax.data.readers.download import fetch
from fedpeft_jax.data.readers.frames import as_frame, read_frame
from fedpeft_jax.data.registry import DATASETS, Source, check_source
from fedpeft_jax.data.settings import DataSettings

MovedBytes = Callable[[str, int, int], None]
"""Receives the name of a file, the bytes downloaded so far, and the total."""


def load_dataset(
    name: str,
    data_dir: str | os.PathLike[str] | None = None,
    data_seed: int = 0,
    **settings: Any,
) -> Dataset:
    """Loads a data set by its name.

    Args:
      name: a key of ``DATASETS``.
      data_dir: the folder of the data set's files; None for generated data.
      data_seed: the seed of generated data.
      **settings: other fields of ``DataSettings``.

    Returns:
      The data set.

    Raises:
      InputError: for an unknown name, a setting that is missing or has no effect, or a
        file that cannot be read.

    Example:
      >>> load_dataset("synthetic").num_users
      1000
      >>> load_dataset("ml-1b")
      Traceback (most recent call last):
      ...
      fedpeft_jax.InputError: `dataset='ml-1b'` is not known: use one of ...
    """
    folder = None if data_dir is None else os.fspath(data_dir)
    return load(
        DataSettings(dataset=name, data_dir=folder, data_seed=data_seed, **settings)
    )


def load(
    settings: DataSettings,
    note: Note | None = None,
    progress: MovedBytes | None = None,
) -> Dataset:
    """Loads the data set that the settings name.

    Missing files are downloaded with `fetch`. With `cache`, prepared data are kept
    in the user's cache folder, and the next call returns them from there.

    Args:
      settings: the name of the data set, its files, filters and columns.
      note: receives a sentence about each file that is downloaded, and about a cache
        that is damaged or cannot be written; without it, the log has the latter.
      progress: receives the progress of each download.

    Returns:
      The data set.

    Raises:
      InputError: as `load_dataset`.

    Example:
      >>> load(DataSettings(k_core=20))
      Dataset('synthetic': 666 users, 509 items, 32951 interactions)
    """
    check_source(settings)
    source = DATASETS[settings.dataset]
    if settings.fetch:
        settings = _fetched(settings, source, note or (lambda text: None), progress)

    def prepare() -> Dataset:
        return build(source.read(settings), settings)

    files = source.files(settings)
    if not files or not settings.cache:
        return prepare()
    return cached(settings, files, prepare, note=note)


def from_frame(
    interactions: Any,
    items: Any = None,
    *,
    valid: Any = None,
    test: Any = None,
    candidates: Any = None,
    name: str = "table",
    **settings: Any,
) -> Dataset:
    """Makes a data set from interactions in memory.

    Args:
      interactions: a Polars data frame, anything with `__arrow_c_stream__` (pandas,
        PyArrow, DuckDB), a dictionary of columns, a structured array, or an array
        [n, 2] of (user, item) or [n, 3] of (user, item, time).
      items: a table of one of these kinds with the text of the items; None for no text.
      valid: with `test`, a table of the validation interactions; None for none.
      test: a table of the test interactions, for data that are already split: all of
        `interactions` then train, and the run needs `split=given`.
      candidates: a table of the items that the test items of each user are ranked
        against, instead of drawn ones: a column of the user, one of the test item, and
        columns of a candidate or of a list of them.
      name: the name of the data set in output.
      **settings: names of columns, filters, `repeated_pairs` and `catalogue`, as in
        `DataSettings`.

    Returns:
      The data set.

    Raises:
      InputError: if an argument is not a table, a column is missing, or a filter leaves
        nothing.

    Example:
      >>> import numpy as np
      >>> data = from_frame(np.array([[3, 7, 12], [3, 9, 10], [3, 8, 11]]))
      >>> data
      Dataset('table': 1 users, 3 items, 3 interactions)
      >>> data.item_ids[data.items.row(0)].tolist()
      [9, 8, 7]
    """
    wanted = DataSettings(dataset="table", **settings)
    raw = read_frame(
        interactions, items, name=name, settings=wanted, valid=valid, test=test
    )
    dataset = build(raw, wanted)
    if candidates is None:
        return dataset
    lists = read_candidates_frame("candidates", as_frame("candidates", candidates))
    return dataclasses.replace(dataset, candidates=lists)


def _fetched(
    settings: DataSettings, source: Source, note: Note, progress: MovedBytes | None
) -> DataSettings:
    """Downloads missing files; returns the settings with the folder of the files."""
    folder = settings.data_dir
    if folder is None:
        folder = os.path.join("data", settings.dataset)
        settings = dataclasses.replace(settings, data_dir=folder)
    try:
        source.files(settings)
        return settings
    except InputError:
        pass  # some files are missing
    assert source.published is not None
    for file in source.published(settings):
        note(f"{file.name} from {source.page}: {source.licence}")
        report = progress and functools.partial(progress, file.name)
        fetch(file, folder, report)
    return settings
