"""Checks of the arguments of a trained model's methods."""

from typing import Any, Literal, TypeAlias

import numpy as np

from fedpeft_jax.core.errors import InputError

Exclude: TypeAlias = bool | Literal["train"]
"""Which part of a history is left out of a ranking."""


def left_out(trains: np.ndarray, exclude: Exclude) -> np.ndarray:
    """Returns whether each interaction is left out of a ranking, bool[nnz].

    Args:
      trains: bool[nnz], whether the interaction trains.
      exclude: True for all, 'train' for those that train, False for none.

    Raises:
      InputError: for another value.

    Example:
      >>> left_out(np.array([True, False]), "train").tolist()
      [True, False]
    """
    if isinstance(exclude, bool):
        return np.full(len(trains), exclude)
    if exclude == "train":
        return trains
    raise InputError(
        f"exclude_history={exclude!r} is not known: use True, False or 'train'"
    )


def check_count(name: str, value: Any) -> None:
    """Raises InputError if an argument is no integer of at least 1."""
    number = isinstance(value, int | np.integer) and not isinstance(value, bool)
    if not number or value < 1:
        raise InputError(f"{name}={value!r} must be an integer of at least 1")
