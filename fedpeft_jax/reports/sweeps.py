"""Finds the settings over which rows of a report are a sweep."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from fedpeft_jax.core import specs
from fedpeft_jax.core.errors import InputError
from fedpeft_jax.experiment.plugins import REGISTRIES

_FEWEST = 3  # values that make a sweep


class Sweep(NamedTuple):
    """Rows that differ in one number alone.

    Attributes:
      rows: the number of each row by the value, in ascending order.
      others: the other settings of these rows, with arguments as `embedding.rank`.
    """

    rows: dict[float, int]
    others: dict[str, Any]


def find_sweeps(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[Sweep]]:
    """Returns rows that differ in one number alone, by the name of the number.

    Args:
      rows: the settings of every row by name.

    Returns:
      For every setting, or argument of a spec such as `embedding.rank`, with at least
      three values: the groups of rows that agree in everything else.

    Example:
      >>> rows = [{"embedding": f"lora(rank={k})", "full": "frozen"} for k in (4, 1, 2)]
      >>> [sweep.rows for sweep in find_sweeps(rows)["embedding.rank"]]
      [{1: 1, 2: 2, 4: 0}]
    """
    flat = [_flatten(row) for row in rows]
    names = dict.fromkeys(name for row in flat for name in row)
    found = {}
    for name in names:
        groups: dict[str, Sweep] = {}
        for place, row in enumerate(flat):
            value = row.get(name)
            if isinstance(value, bool) or not isinstance(value, int | float):
                continue
            others = {k: v for k, v in row.items() if k != name}
            rest = repr(sorted((k, repr(v)) for k, v in others.items()))
            groups.setdefault(rest, Sweep({}, others)).rows[value] = place
        kept = [
            group._replace(rows=dict(sorted(group.rows.items())))
            for group in groups.values()
            if len(group.rows) >= _FEWEST
        ]
        if kept:
            found[name] = kept
    return found


def sweep_labels(sweeps: Sequence[Sweep], families: Sequence[str]) -> list[str]:
    """Returns a label for each sweep: its family, and what others of it do not have.

    Args:
      sweeps: sweeps of one setting.
      families: the kind of item embedding of each sweep.

    Example:
      >>> sweeps = [Sweep({}, {"rounds": n}) for n in (10, 20)]
      >>> sweep_labels(sweeps, ["LoRA", "LoRA"])
      ['LoRA, rounds=10', 'LoRA, rounds=20']
    """
    labels = []
    for sweep, family in zip(sweeps, families, strict=True):
        kin = [
            other.others
            for other, name in zip(sweeps, families, strict=True)
            if name == family
        ]
        varied = [
            f"{name}={value}"
            for name, value in sweep.others.items()
            if any(repr(one.get(name)) != repr(value) for one in kin)
        ]
        labels.append(", ".join([family, *varied]))
    return labels


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
