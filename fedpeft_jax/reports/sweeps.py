"""Finds the settings over which rows of a report are a sweep."""

from collections.abc import Mapping, Sequence
from typing import Any

from fedpeft_jax.core import specs
from fedpeft_jax.core.errors import InputError
from fedpeft_jax.experiment.plugins import REGISTRIES

_FEWEST = 3  # values that make a sweep


def find_sweeps(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[dict[float, int]]]:
    """Returns rows that differ in one number alone, by the name of the number.

    Args:
      rows: the settings of every row by name.

    Returns:
      For every setting, or argument of a spec such as `embedding.rank`, with at least
      three values: the groups of rows that agree in everything else, each as the number
      of the row by value, in ascending order.

    Example:
      >>> rows = [{"embedding": f"lora(rank={k})", "full": "frozen"} for k in (4, 1, 2)]
      >>> find_sweeps(rows)
      {'embedding.rank': [{1: 1, 2: 2, 4: 0}]}
    """
    flat = [_flatten(row) for row in rows]
    names = dict.fromkeys(name for row in flat for name in row)
    found = {}
    for name in names:
        groups: dict[str, dict[float, int]] = {}
        for place, row in enumerate(flat):
            value = row.get(name)
            if isinstance(value, bool) or not isinstance(value, int | float):
                continue
            rest = repr(sorted((k, repr(v)) for k, v in row.items() if k != name))
            groups.setdefault(rest, {})[value] = place
        kept = [dict(sorted(g.items())) for g in groups.values() if len(g) >= _FEWEST]
        if kept:
            found[name] = kept
    return found


def _flatten(row: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the settings with the arguments of every spec as entries of their own."""
    found: dict[str, Any] = {}
    for name, value in row.items():
        registry = REGISTRIES.get(name)
        if registry is None or not isinstance(value, str):
            found[name] = value
            continue
        try:
            plugin, given = specs.parse(value)
            known = specs.arguments(registry[plugin])
        except (InputError, KeyError):  # several specs, or no plugin of this version
            found[name] = value
            continue
        found[name] = plugin
        for key, argument in known.items():
            found[f"{name}.{key}"] = given.get(key, argument.default)
    return found
