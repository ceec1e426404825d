"""Release: the stage between the sums over a cohort and the server's step.

The server learns only the sums of a cohort. A release stage bounds what one client adds
to them, and replaces them by those that the server may use. Differential privacy needs
both: a bound on one client, and noise in proportion to it.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import jax

from fedpeft_jax.core.errors import InputError
from fedpeft_jax.core.typing import Array, Key, PyTree
from fedpeft_jax.federated.updates import ClientUpdate, Sums

Figures = Mapping[str, Array]
"""Scalars float32[] by name that a stage reports for the output of the run."""


class Cohort(NamedTuple):
    """What a release stage may use about the clients behind the sums.

    Attributes:
      size: int32[], the number of clients that took part.
      uniform_weights: whether the weight of every client is 1.
      bounded: sums over these clients of what the stage's `bound` reports, float32[] by
        name.
    """

    size: Array
    uniform_weights: bool
    bounded: Figures = MappingProxyType({})


def _unbounded(update: ClientUpdate, state: Any) -> tuple[ClientUpdate, Figures]:
    del state
    return update, {}


class Release(NamedTuple):
    """A stage that replaces the sums by those that the server uses.

    Attributes:
      init: `(server) -> state`, where `server` holds the server's variables
        `{'params': ..., 'rows': ...}`.
      apply: `(Sums, state, Cohort, key) -> (Sums, state, figures)`, once per round.
      bound: `(update, state) -> (update, figures)`, for the decoded update of each
        client before it enters the sums. The figures are scalars float32[] by name.
        `apply` receives their sums, and a run reports their means over the cohort. By
        default nothing is bounded.
      private: whether the sums hide the cohort. The loss is then not reported, and the
        server takes a step even if nobody answered, because the noise must not reveal
        that.
    """

    init: Callable[[PyTree], Any]
    apply: Callable[[Sums, Any, Cohort, Key], tuple[Sums, Any, Figures]]
    bound: Callable[[ClientUpdate, Any], tuple[ClientUpdate, Figures]] = _unbounded
    private: bool = False


def identity_release() -> Release:
    """Returns the stage that releases the sums as they are."""
    return Release(
        lambda server: (), lambda sums, state, cohort, key: (sums, state, {})
    )


def chain_releases(*stages: Release) -> Release:
    """Returns a stage that applies the given stages in order.

    Each stage receives its own key. Two stages may not report figures of the same name.

    Args:
      *stages: any number of stages.

    Example:
      >>> chain_releases(identity_release(), identity_release()).init({})
      ((), ())
    """

    def init(server: PyTree) -> Any:
        return tuple(stage.init(server) for stage in stages)

    def apply(
        sums: Sums, state: Any, cohort: Cohort, key: Key
    ) -> tuple[Sums, Any, Figures]:
        states, figures = [], dict[str, Array]()
        for place, (stage, own) in enumerate(zip(stages, state, strict=True)):
            own_key = jax.random.fold_in(key, place)
            sums, own, found = stage.apply(sums, own, cohort, own_key)
            states.append(own)
            figures = merge_figures(figures, found)
        return sums, tuple(states), figures

    def bound(update: ClientUpdate, state: Any) -> tuple[ClientUpdate, Figures]:
        figures = dict[str, Array]()
        for stage, own in zip(stages, state, strict=True):
            update, found = stage.bound(update, own)
            figures = merge_figures(figures, found)
        return update, figures

    return Release(init, apply, bound, any(stage.private for stage in stages))


def merge_figures(first: Figures, second: Figures) -> dict[str, Array]:
    """Returns the figures of two stages together.

    Args:
      first: the figures of one stage, by name.
      second: the figures of another stage, by name.

    Raises:
      InputError: if both stages report a figure of the same name.

    Example:
      >>> merge_figures({"clipped": 0.5}, {"noise": 2.0})
      {'clipped': 0.5, 'noise': 2.0}
    """
    if shared := first.keys() & second.keys():
        raise InputError(
            f"two stages report a figure named {min(shared)!r}: leave one stage out"
        )
    return {**first, **second}
