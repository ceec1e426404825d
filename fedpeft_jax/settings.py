"""Settings as dataclass fields that carry their help, their words and their bounds."""

import dataclasses
from typing import Any

from fedpeft_jax.errors import InputError


def setting(
    default: Any, help_: str, choices: tuple[str, ...] = (), least: int | None = None
) -> Any:
    """Declares a setting: a field of a frozen dataclass, of which a flag is made.

    Args:
      default: None for a setting that is derived, or left out.
      help_: one phrase.
      choices: the words that it may be; any, if there are none.
      least: the least number that it may be.
    """
    metadata = {"help": help_, "choices": choices, "least": least}
    return dataclasses.field(default=default, metadata=metadata)


def check_fields(settings: Any) -> None:
    """Checks every field of a settings dataclass against its choices and its bound.

    Raises:
      InputError: for a word that is not known, or a number that is too small.
    """
    for field in dataclasses.fields(settings):
        value = getattr(settings, field.name)
        choices, least = field.metadata["choices"], field.metadata["least"]
        if choices and value not in choices:
            raise InputError(
                f"{field.name}={value!r} is not known: use one of {', '.join(choices)}"
            )
        if least is not None and value is not None and value < least:
            raise InputError(
                f"{field.name}={value} is too small: it must be at least {least}"
            )
