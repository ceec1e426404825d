"""Settings as dataclass fields that carry their help text, choices and bounds.

Messages write a setting in backticks, `name=value`. The command line rewrites these as
flags; a Python user reads them as they are.
"""

import dataclasses
import math
import types
import typing
from typing import Any, NamedTuple

import numpy as np

from fedpeft_jax.core.bounds import Bounds, check_float32
from fedpeft_jax.core.errors import InputError, brief

MOST_CHARACTERS = 4096
"""The longest text that a setting may be; the longest path on most systems."""

_WORDS: dict[type, str] = {
    str: "a string",
    int: "an integer",
    float: "a number",
    bool: "True or False",
}


class Suggestions(NamedTuple):
    """Values that a plugin suggests for settings that the user leaves out.

    A value that the user gives always wins. The recommender's suggestion takes
    precedence over the embedding's, because the right value also depends on the
    recommender.

    Attributes:
      latent_scale: standard deviation of the entries of a full table that starts from
        item text.
      warm_up_rounds: rounds that train the full table before it is frozen.
      merge_every: rounds of the main phase between two merges; 0 for none.
      cohort_size: clients in a round.
      client_optimizer: a spec, the optimizer of the clients.
      private_optimizer: a spec, the optimizer of the private parameters.
      server_optimizer: a spec, the server's optimizer of item rows.
      shared_server_optimizer: a spec, the server's optimizer of shared parameters.
    """

    latent_scale: float | None = None
    warm_up_rounds: int | None = None
    merge_every: int | None = None
    cohort_size: int | None = None
    client_optimizer: str | None = None
    private_optimizer: str | None = None
    server_optimizer: str | None = None
    shared_server_optimizer: str | None = None


def setting(
    default: Any,
    help_: str,
    *,
    choices: tuple[str, ...] = (),
    least: float | None = None,
    above: float | None = None,
    most: float | None = None,
    below: float | None = None,
) -> Any:
    """Declares a setting, from which the command line makes a flag.

    A setting is a field of a frozen dataclass. A number must be finite, and within the
    bounds that are given.

    Args:
      default: None if the setting is optional, or is resolved from other settings.
      help_: one phrase, with other settings in backticks.
      choices: the words that it may be; any word if there are none.
      least: the least number that it may be.
      above: a number that it must be above.
      most: the largest number that it may be.
      below: a number that it must be below.
    """
    bounds = Bounds(least, above, most, below)
    metadata = {"help": help_, "choices": choices, "bounds": bounds}
    return dataclasses.field(default=default, metadata=metadata)


def check_fields(settings: Any) -> None:
    """Checks every field of a settings dataclass: type, choices and bounds.

    A whole number is a valid value of a setting of type float, and a boolean is none
    of type int. A text has no NUL character and a bounded length. None is not checked.

    Raises:
      InputError: for a value of another type than the field's, a word that is not
        known, or a number that is out of bounds.

    Example:
      >>> @dataclasses.dataclass(frozen=True)
      ... class Toy:
      ...     share: float = setting(0.1, "a share", above=0, most=1)
      >>> check_fields(Toy(1.5))
      Traceback (most recent call last):
      ...
      fedpeft_jax.InputError: `share=1.5` must be above 0 and at most 1
    """
    for field in dataclasses.fields(settings):
        value = getattr(settings, field.name)
        if value is None:
            continue
        _check_field(field, value)


def _check_field(field: dataclasses.Field[Any], value: Any) -> None:
    kind, given = kind_of(field), f"`{field.name}={brief(value)}`"
    if type(value) is not kind and not (kind is float and type(value) is int):
        raise InputError(f"{given} must be {_WORDS[kind]}")
    choices, bounds = field.metadata["choices"], field.metadata["bounds"]
    if choices and value not in choices:
        raise InputError(f"{given} is not known: use one of {', '.join(choices)}")
    if isinstance(value, str):
        if "\0" in value:
            raise InputError(f"{given} has a NUL character: leave it out")
        if len(value) > MOST_CHARACTERS:
            raise InputError(
                f"{given} has {len(value)} characters: use at most {MOST_CHARACTERS}"
            )
        if not value.strip() and field.default is None:
            raise InputError(f"{given} is empty: leave it out")
        return
    assert isinstance(value, int | float)
    if kind is float and not abs(value) < math.inf:
        raise InputError(f"{given} must be a finite number")
    if not bounds.hold(value):
        raise InputError(f"{given} must be {bounds.words()}")
    check_float32(given, value)


def plain(value: Any) -> Any:
    """Returns a NumPy scalar as the Python value, and anything else as it is.

    Example:
      >>> import numpy as np
      >>> plain(np.int64(3)), plain(np.float64(0.5)), plain("word")
      (3, 0.5, 'word')
    """
    return value.item() if isinstance(value, np.generic) else value


def kind_of(field: dataclasses.Field[Any]) -> type:
    """Returns the type of a setting, without None.

    Args:
      field: a field that `setting` declared, of type str, int, float or bool.
    """
    options = typing.get_args(field.type) or (field.type,)
    kind: type = next(option for option in options if option is not types.NoneType)
    return kind
