"""Every data set that can be asked for by name, and the one function that loads it."""

import dataclasses
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from fedpeft_jax.core.errors import InputError
from fedpeft_jax.data.dataset import Dataset, build_dataset
from fedpeft_jax.data.filters import apply_filters
from fedpeft_jax.data.prepared import cached
from fedpeft_jax.data.readers import amazon, download, movielens, movielens_files
from fedpeft_jax.data.readers.raw import Raw
from fedpeft_jax.data.readers.synthetic import synthetic_interactions
from fedpeft_jax.data.readers.tables import read_table
from fedpeft_jax.data.settings import DataSettings

Note = Callable[[str], None]
"""Hears a sentence."""

MovedBytes = Callable[[str, int, int], None]
"""Hears of a file that is being fetched, bytes so far, and of how many."""


class Source(NamedTuple):
    """Where a data set comes from.

    Attributes:
      read: settings -> what was read or generated.
      files: settings -> the files that are read; none if it is generated.
      published: settings -> what `--download` fetches.
      page: where it is published.
      licence: one sentence, for who downloads it.
    """

    read: Callable[[DataSettings], Raw]
    files: Callable[[DataSettings], list[Path]] = lambda settings: []
    published: Callable[[DataSettings], list[download.File]] | None = None
    page: str = ""
    licence: str = ""


def _movielens(name: str) -> Source:
    def folder(settings: DataSettings) -> str:
        if settings.data_dir is None:
            raise InputError(
                f"dataset {name!r} is read from files: give --data_dir=DIR, the folder "
                f"of {name}.zip from {movielens_files.page(name)}, or set --download"
            )
        return settings.data_dir

    return Source(
        read=lambda s: movielens.read_movielens(name, folder(s)),
        files=lambda s: movielens.movielens_sources(name, folder(s)),
        published=lambda s: [
            download.movielens_file(name, movielens.LAYOUTS[name].md5)
        ],
        page=movielens_files.page(name),
        licence="for research; passing it on and commercial use need permission",
    )


def _amazon(name: str) -> Source:
    layout = amazon.LAYOUTS[name]

    def folder(settings: DataSettings) -> str:
        if settings.data_dir is None:
            raise InputError(
                f"dataset {name!r} is read from files: give --data_dir=DIR, the folder "
                f"of {layout.reviews.format('CATEGORY')} from {layout.page}, or set "
                "--download"
            )
        return settings.data_dir

    def published(settings: DataSettings) -> list[download.File]:
        if settings.category is None:
            raise InputError(
                f"{name} has many categories: set --category=Software, ..."
            )
        names = [f.format(settings.category) for f in (layout.reviews, layout.items)]
        return download.amazon_files(name, names)

    return Source(
        read=lambda s: amazon.read_amazon(name, folder(s), s.category),
        files=lambda s: amazon.amazon_sources(name, folder(s), s.category),
        published=published,
        page=layout.page,
        licence="for academic use",
    )


def _table_files(settings: DataSettings) -> list[Path]:
    names = (
        settings.interactions, settings.valid_interactions,
        settings.test_interactions, settings.items,
    )  # fmt: skip
    return [Path(name) for name in names if name is not None and Path(name).is_file()]


DATASETS: dict[str, Source] = {
    "synthetic": Source(lambda settings: synthetic_interactions(settings.data_seed)),
    **{name: _movielens(name) for name in movielens.LAYOUTS},
    **{name: _amazon(name) for name in amazon.LAYOUTS},
    "table": Source(read_table, _table_files),
}
"""Sources by the name that ``--dataset`` takes."""


def load_dataset(
    name: str,
    data_dir: str | os.PathLike[str] | None = None,
    data_seed: int = 0,
    **settings: Any,
) -> Dataset:
    """Loads a data set by its name.

    Args:
      name: a key of ``DATASETS``.
      data_dir: the folder of the data set's files; None for one that is generated.
      data_seed: fixes a data set that is generated.
      **settings: more of ``DataSettings``.

    Returns:
      The data set.

    Raises:
      InputError: an unknown name, a missing or a useless setting, or whatever the
        reader finds wrong with the files.

    Example:
      >>> load_dataset("synthetic").num_users
      1000
      >>> load_dataset("ml-1b")
      Traceback (most recent call last):
      ...
      fedpeft_jax.InputError: dataset='ml-1b' is not known: use one of ...
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
    """Loads the data set of some settings: fetched, read, filtered, numbered, cached.

    Raises:
      InputError: as `load_dataset`.
    """
    check_source(settings)
    source = DATASETS[settings.dataset]
    if settings.download:
        settings = _fetched(settings, source, note or (lambda text: None), progress)

    def prepare() -> Dataset:
        raw = apply_filters(source.read(settings), settings)
        return build_dataset(
            raw.name,
            raw.interactions,
            raw.item_text,
            notes=raw.notes,
            catalogue=settings.catalogue,
            repeated_pairs=settings.repeated_pairs,
        )

    files = source.files(settings)
    if not files or not settings.cache:
        return prepare()
    return cached(settings, files, prepare)


def check_source(settings: DataSettings) -> None:
    """Raises InputError for settings that the data set has no use for."""
    name = settings.dataset
    if name not in DATASETS:
        raise InputError(
            f"dataset={name!r} is not known: use one of {', '.join(DATASETS)}"
        )
    source = DATASETS[name]
    if settings.data_dir is not None and source.published is None:
        raise InputError(
            f"dataset {name!r} reads no files, got data_dir={settings.data_dir!r}: "
            f"drop --data_dir, or choose another of {', '.join(DATASETS)}"
        )
    if settings.download and source.published is None:
        raise InputError(f"dataset {name!r} is not published: leave --download out")
    if settings.category is not None and not name.startswith("amazon"):
        raise InputError(
            f"category={settings.category!r} is of the Amazon reviews, and this is "
            f"{name}: leave it out"
        )
    if settings.split == "given" and name != "table":
        raise InputError(f"split=given is of --dataset=table, and this is {name}")


def _fetched(
    settings: DataSettings, source: Source, note: Note, progress: MovedBytes | None
) -> DataSettings:
    """The settings with the folder of files that are there now."""
    folder = settings.data_dir
    if folder is None:
        folder = os.path.join("data", settings.dataset)
        settings = dataclasses.replace(settings.of_data(), data_dir=folder)
    try:
        source.files(settings)
        return settings
    except InputError:
        pass  # not there yet
    assert source.published is not None
    for file in source.published(settings):
        note(f"{file.name} from {source.page}: {source.licence}")
        hear = None
        if progress is not None:
            hear = lambda done, total, n=file.name: progress(n, done, total)  # noqa: E731
        download.fetch(file, folder, hear)
    return settings
