"""The protocol of a run: which of its settings are unsound, and whether it leaks."""

from collections.abc import Mapping
from typing import Any

from fedpeft_jax.experiment.config import RunConfig


def unsound_choices(config: RunConfig) -> list[str]:
    """Returns one phrase per setting that makes the protocol of a run unsound.

    Args:
      config: the configuration.

    Example:
      >>> from fedpeft_jax.experiment.config import configure
      >>> unsound_choices(configure())
      []
      >>> unsound_choices(configure(valid_items=0))
      ['valid_items=0: there are no validation items for the choice of settings']
    """
    found = []
    if config.data.split == "file":
        found.append(
            "split=file: rows need not be in time order, and may be in the same order "
            "for all users"
        )
    if config.training.train_negatives == "unseen":
        found.append(
            "train_negatives=unseen: held-out items are never negatives, which reveals "
            "them"
        )
    if not config.data.valid_items:
        found.append(
            "valid_items=0: there are no validation items for the choice of settings"
        )
    if slots := config.training.negative_slots:
        found.append(
            f"negative_slots={slots}: the other items are never negatives and never "
            "candidates"
        )
    if config.data.catalogue == "slots":
        found.append(
            "catalogue=slots: ids without an item are negatives and candidates"
        )
    return found


def describe_protocol(
    config: RunConfig,
    leak: Mapping[str, Any] | None,
    candidates: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Returns the `protocol` part of a run's summary.

    Args:
      config: the configuration.
      leak: the result of `per_user.leak`; None if it was not measured.
      candidates: the result of `describe_candidates`; None if they were drawn.
    """
    given = {} if candidates is None else {"candidates": dict(candidates)}
    return {
        "unsound": unsound_choices(config),
        "log_odds_over_popularity": None if leak is None else dict(leak),
        **given,
    }
