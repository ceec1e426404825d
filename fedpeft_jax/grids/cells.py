"""The cells of a grid: the product of its axes, each with a configuration and name."""

import hashlib
import itertools
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from fedpeft_jax.core.errors import InputError
from fedpeft_jax.experiment import RunConfig, cli
from fedpeft_jax.grids.addresses import Settings, apply
from fedpeft_jax.grids.axes import Axis

_LONGEST = 120  # characters of a name; file systems allow 255 bytes


class Cell(NamedTuple):
    """One run of a grid.

    Attributes:
      name: the name of its folder.
      changes: what differs from the settings of all cells, by address.
      config: its configuration.
    """

    name: str
    changes: Settings
    config: RunConfig

    @property
    def row(self) -> str:
        """The changes without the seed, as text."""
        return row_text(self.changes) or "the common settings"


def row_text(changes: Mapping[str, Any]) -> str:
    """Returns changes as text, without the seed.

    Example:
      >>> row_text({"full": "none", "rounds": 30, "seed": 1})
      'full=none rounds=30'
    """
    return " ".join(f"{k}={v}" for k, v in changes.items() if k != "seed")


def expand(
    common: Mapping[str, Any],
    axes: Sequence[Axis],
    names: Mapping[str, Settings] | None = None,
) -> list[Cell]:
    """Returns the cells of the product of axes; the last axis changes fastest.

    Args:
      common: the settings of all cells by name, without `out`.
      axes: the axes.
      names: the changes of cells that have a name already, by name.

    Raises:
      InputError: for an address in two axes, two cells that are the same, or settings
        that `configure` does not accept.

    Example:
      >>> [cell.name for cell in expand({}, [[{"seed": 0}, {"seed": 1}]])]
      ['seed=0', 'seed=1']
    """
    _check_axes(axes)
    known = {_identity(changes): name for name, changes in (names or {}).items()}
    taken = {name.lower() for name in known.values()}
    cells: list[Cell] = []
    seen: set[str] = set()
    for parts in itertools.product(*axes):
        changes = {k: v for part in parts for k, v in part.items()}
        if "seed" in changes:  # at the end of the name
            changes["seed"] = changes.pop("seed")
        identity = _identity(changes)
        if identity in seen:
            raise InputError(
                f"the grid has {row_text(changes) or 'a cell'} twice: name it once"
            )
        seen.add(identity)
        settings = apply(common, changes)
        try:
            config = cli.configure_row(settings)
        except InputError as error:
            raise InputError(f"{_words(changes)}: {error}") from None
        name = known.get(identity)
        if name is None:
            name = slug(changes)
            if name.lower() in taken:
                name = f"{name}~{_hash(identity)}"
            taken.add(name.lower())
        cells.append(Cell(name, changes, config))
    return cells


def slug(changes: Mapping[str, Any]) -> str:
    """Returns a readable name for a folder, which depends on the changes alone.

    Args:
      changes: values by address.

    Example:
      >>> slug({"embedding": "rq(num_codebooks=4, quantizer='kmeans')", "seed": 0})
      'embedding=rq(num_codebooks=4,quantizer=kmeans),seed=0'
      >>> slug({"data_dir": "/a b/c"}), slug({})
      ('data_dir=-ab-c', 'common')
    """
    text = ",".join(f"{address}={value}" for address, value in changes.items())
    text = re.sub(r"[\s'\"]", "", text)
    text = re.sub(r"[^A-Za-z0-9._=,()+-]", "-", text).strip(".")
    if len(text) > _LONGEST:
        text = f"{text[: _LONGEST - 9]}~{_hash(_identity(changes))}"
    return text or "common"


def _check_axes(axes: Iterable[Axis]) -> None:
    seen: set[str] = set()
    for axis in axes:
        addresses = {address for changes in axis for address in changes}
        if both := sorted(addresses & seen):
            raise InputError(
                f"`{both[0]}` is varied twice, by two flags: vary it by one of them"
            )
        seen |= addresses


def _words(changes: Mapping[str, Any]) -> str:
    return " ".join(f"{k}={v}" for k, v in changes.items()) or "the grid"


def _identity(changes: Mapping[str, Any]) -> str:
    return json.dumps(changes, sort_keys=True, default=list)


def _hash(identity: str) -> str:
    return hashlib.sha256(identity.encode()).hexdigest()[:8]
