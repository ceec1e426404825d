"""Figures of attacks: per victim, averaged over victims, and by their activity."""

from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np

from fedpeft_jax.privacy.attacks import (
    Mean,
    auc,
    mean_over_victims,
    precision_at_positives,
)

THIRDS = ("low", "middle", "high")
"""Thirds of all clients by their number of training items."""


class Case(NamedTuple):
    """One attack in one situation.

    Attributes:
      attack: the name of the attack.
      clients: m, the clients whose updates are summed; 1 is no sum.
      rounds: T, the rounds in which the victim is observed.
      knows_rows: whether the attacker knows the items that the clients trained on.
      target: `'member'`, the items of each client, or `'union'`, those of all clients
        of the sum.
    """

    attack: str
    clients: int
    rounds: int
    knows_rows: bool
    target: str = "member"


class Figures(NamedTuple):
    """How well one attack finds the items of one victim.

    Attributes:
      client_id: the victim; -1 for a union.
      auc: area under the ROC curve over the candidates.
      precision: the share of positives among as many of the highest scores.
      chance: the share of positives among the candidates: the precision of chance.
    """

    client_id: int
    auc: float
    precision: float
    chance: float


def evaluate_scores(
    client_id: int,
    scores: np.ndarray,
    positives: np.ndarray,
    candidates: np.ndarray | None,
) -> Figures:
    """Returns the figures of one victim.

    Args:
      client_id: the victim; -1 for a union.
      scores: float[I].
      positives: bool[I], the items that the attacker wants to find.
      candidates: bool[I], the items that the attacker knows the clients trained on;
        None if every item is a candidate.

    Example:
      >>> positives = np.array([True, False, False, False])
      >>> evaluate_scores(7, np.array([3.0, 2.0, 1.0, 9.0]), positives, None)
      Figures(client_id=7, auc=0.666..., precision=0.0, chance=0.25)
    """
    if candidates is not None:
        scores, positives = scores[candidates], positives[candidates]
    chance = float(positives.mean()) if len(positives) else float("nan")
    return Figures(
        client_id,
        auc(scores, positives),
        precision_at_positives(scores, positives),
        chance,
    )


def summarise(
    found: dict[Case, list[Figures]], counts: np.ndarray
) -> list[dict[str, Any]]:
    """Returns the means of all cases, each an object that JSON can hold.

    Args:
      found: the figures of every victim.
      counts: int[U], each client's number of training items.
    """
    bounds = np.quantile(counts, [1 / 3, 2 / 3])
    entries = []
    for case, figures in found.items():
        entry: dict[str, Any] = {**case._asdict(), **_means(figures)}
        if case.target == "member":
            third = [int(np.searchsorted(bounds, counts[f.client_id])) for f in figures]
            entry["by_activity"] = {
                name: _means(f for f, t in zip(figures, third, strict=True) if t == n)
                for n, name in enumerate(THIRDS)
            }
        entries.append(entry)
    return entries


def _means(figures: Iterable[Figures]) -> dict[str, Any]:
    found = list(figures)

    def mean(name: str) -> Mean:
        return mean_over_victims([getattr(f, name) for f in found])

    return {
        **{name: _as_json(mean(name)) for name in ("auc", "precision", "chance")},
        "victims": len(found),
    }


def _as_json(mean: Mean) -> dict[str, float | None]:
    """Returns a mean and its error; JSON has no NaN."""
    return {
        name: None if np.isnan(value) else float(value)
        for name, value in (("mean", mean.value), ("error", mean.error))
    }
