"""Every data set that can be asked for by name, and the one function that loads it.

A loader takes the folder of the files (None if not given) and the data seed, and
refuses whichever of the two it needs and does not get, or cannot use.
"""

import os
from collections.abc import Callable
from typing import TypeAlias

from fedpeft_jax.data.dataset import Dataset
from fedpeft_jax.data.movielens import URL, load_movielens_1m
from fedpeft_jax.data.synthetic import load_synthetic
from fedpeft_jax.errors import InputError

PathLike: TypeAlias = str | os.PathLike[str]
Loader: TypeAlias = Callable[[PathLike | None, int], Dataset]


def _load_synthetic(data_dir: PathLike | None, data_seed: int) -> Dataset:
    if data_dir is not None:
        raise InputError(
            "dataset 'synthetic' reads no files, "
            f"got data_dir={os.fspath(data_dir)!r}: "
            f"drop --data_dir, or choose another of {', '.join(DATASETS)}"
        )
    return load_synthetic(data_seed)


def _load_movielens_1m(data_dir: PathLike | None, data_seed: int) -> Dataset:
    del data_seed  # nothing is drawn: the files are the data set
    if data_dir is None:
        raise InputError(
            "dataset 'ml-1m' is read from files: "
            f"give --data_dir=DIR, the folder of ml-1m.zip from {URL}"
        )
    return load_movielens_1m(data_dir)


DATASETS: dict[str, Loader] = {
    "synthetic": _load_synthetic,
    "ml-1m": _load_movielens_1m,
}
"""Loaders by the name that ``--dataset`` takes."""


def load_dataset(
    name: str, data_dir: PathLike | None = None, data_seed: int = 0
) -> Dataset:
    """Loads a data set by its name.

    Args:
      name: a key of ``DATASETS``.
      data_dir: the folder of the data set's files; None for one that is generated.
      data_seed: fixes a data set that is generated.

    Returns:
      The data set.

    Raises:
      InputError: an unknown name, a missing or a useless ``data_dir``, or whatever the
        reader finds wrong with the files.

    Example:
      >>> load_dataset("synthetic").num_users
      1000
      >>> load_dataset("ml-1b")
      Traceback (most recent call last):
      ...
      fedpeft_jax.errors.InputError: unknown dataset 'ml-1b': use synthetic or ml-1m
    """
    if name not in DATASETS:
        raise InputError(f"unknown dataset {name!r}: use {' or '.join(DATASETS)}")
    return DATASETS[name](data_dir, data_seed)
