"""Addresses of a grid: a setting, or one argument of the spec that a setting holds.

`client_optimizer.learning_rate=0.003` changes the learning rate of the optimizer that
the cell has anyway, whether the user, the recommender or a default chose it.
"""

import ast
import re
from collections.abc import Mapping
from typing import Any

from fedpeft_jax.core import specs
from fedpeft_jax.core.errors import InputError, brief
from fedpeft_jax.core.settings import kind_of
from fedpeft_jax.experiment import FIELDS, cli
from fedpeft_jax.experiment.plugins import REGISTRIES

Settings = dict[str, Any]
"""Settings by name, or changes by address."""

_TRUTH = {"true": True, "1": True, "false": False, "0": False}


def check_address(address: str) -> None:
    """Raises InputError if an address names neither a setting nor a spec's argument.

    Example:
      >>> check_address("embedding.rank")
      >>> check_address("rounds.rank")
      Traceback (most recent call last):
      ...
      fedpeft_jax.InputError: rounds.rank: `rounds` is no spec, which has arguments: ...
    """
    name, dot, argument = address.partition(".")
    if name not in FIELDS:
        raise InputError(f"there is no setting {brief(name)}: check its name")
    if dot and name not in REGISTRIES:
        raise InputError(
            f"{address}: `{name}` is no spec, which has arguments: use one of "
            f"{', '.join(REGISTRIES)}"
        )
    if dot and not argument.isidentifier():
        raise InputError(f"{brief(address)} is not setting.argument")


def parse_value(address: str, text: str) -> Any:
    """Returns the value that a text stands for, at an address.

    Args:
      address: the address. An argument takes Python literals, and words are texts.
      text: the text of the value.

    Raises:
      InputError: for an unknown address, or a text that is no such value.

    Example:
      >>> parse_value("seed", "3"), parse_value("embedding.rank", "4")
      (3, 4)
      >>> parse_value("embedding.quantizer", "kmeans")
      'kmeans'
    """
    check_address(address)
    if "." in address:
        try:
            value = ast.literal_eval(text.strip())
            if _is_plain(value):
                return value
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            if text.strip().isidentifier():
                return text.strip()
        raise InputError(f"{address}: {brief(text)} is no number, text or tuple")
    kind = kind_of(FIELDS[address])
    try:
        if kind is bool:
            return _TRUTH[text.strip().lower()]
        return text if kind is str else kind(text)
    except (ValueError, KeyError):
        words = {int: "an integer", float: "a number", bool: "true or false"}
        raise InputError(
            f"`{address}={text}`: {brief(text)} is not {words[kind]}"
        ) from None


def parse_range(address: str, text: str) -> list[int] | None:
    """Returns the integers of a half-open range; None if the text is no range.

    Args:
      address: an address, whose values may be integers.
      text: `first:end` or `first:end:step`.

    Raises:
      InputError: for a range without numbers.

    Example:
      >>> parse_range("seed", "0:10:4")
      [0, 4, 8]
      >>> parse_range("data_dir", "0:10") is None
      True
    """
    match = re.fullmatch(r"\s*(-?\d+):(-?\d+)(?::(-?\d+))?\s*", text)
    if match is None or not ("." in address or kind_of(FIELDS[address]) is int):
        return None
    first, end, step = int(match[1]), int(match[2]), int(match[3] or 1)
    count = -((first - end) // step) if step else 0
    if count < 1:
        raise InputError(f"{address}={text} has no values: write {address}=0:5")
    if count > 100_000:
        raise InputError(f"{address}={text} has {count} values: use fewer")
    return list(range(first, end, step))


def _is_plain(value: Any) -> bool:
    """Returns whether a value can be written as JSON."""
    if isinstance(value, tuple | list):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, str | int | float)


def apply(common: Mapping[str, Any], changes: Mapping[str, Any]) -> Settings:
    """Returns the settings of a cell.

    Args:
      common: the settings of all cells by name.
      changes: the cell's values by address. Arguments change the specs that the cell
        has after all whole settings are set.

    Raises:
      InputError: for an argument that the plugin of the cell does not have.

    Example:
      >>> apply({"rounds": 30}, {"embedding.rank": 2, "embedding": "lora(alpha=1.0)"})
      {'rounds': 30, 'embedding': 'lora(alpha=1.0, rank=2)'}
    """
    settings = {**common, **{k: v for k, v in changes.items() if "." not in k}}
    for address, value in changes.items():
        name, dot, argument = address.partition(".")
        if dot:
            spec = settings.get(name)
            if spec is None:  # the recommender or a default chooses it
                spec = cli.configure_row(settings).flat()[name]
            settings[name] = _with_argument(name, str(spec), argument, value)
    return settings


def _with_argument(name: str, text: str, argument: str, value: Any) -> str:
    """Returns a spec with one argument changed; of several stages, the one with it."""
    registry = REGISTRIES[name]
    stages = specs.split_chain(text)
    having = [
        index
        for index, stage in enumerate(stages)
        if (factory := registry.get(specs.name_of(stage))) is not None
        and argument in specs.arguments(factory)
    ]
    if len(having) != 1:
        if len(having) > 1:
            raise InputError(f"{name}.{argument}: several specs of {text!r} have it")
        usage = ", ".join(
            specs.signature(plugin, registry[plugin])
            for plugin in map(specs.name_of, stages)
            if plugin in registry
        )
        raise InputError(
            f"{name}.{argument}: {text!r} has no argument {argument!r}: use "
            f"{usage or 'a spec that has it'}"
        )
    plugin, kwargs = specs.parse(stages[having[0]])
    kwargs[argument] = value
    given = ", ".join(f"{key}={item!r}" for key, item in kwargs.items())
    stages[having[0]] = f"{plugin}({given})"
    return ", ".join(stages)
