"""The protocol of a run: which of its choices are unsound, and whether it leaks."""

from collections.abc import Mapping
from typing import Any

from fedpeft_jax.experiment.config import RunConfig


def unsound_choices(config: RunConfig) -> list[str]:
    """Returns one phrase for each choice of a protocol that is unsound.

    Example:
      >>> from fedpeft_jax.experiment.config import configure
      >>> unsound_choices(configure())
      []
      >>> unsound_choices(configure(split="file"))[0]
      'split=file: the order of the rows is no time, and may be the same for all users'
    """
    found = []
    if config.data.split == "file":
        found.append(
            "split=file: the order of the rows is no time, and may be the same for all "
            "users"
        )
    if config.training.train_negatives == "unseen":
        found.append(
            "train_negatives=unseen: that an item is never a negative tells that it is "
            "held out"
        )
    if not config.data.valid_items:
        found.append("valid_items=0: there is nothing to choose settings by")
    if slots := config.training.negative_slots:
        found.append(
            f"negative_slots={slots}: the other items are never negatives and never "
            "rivals"
        )
    if config.data.catalogue == "slots":
        found.append("catalogue=slots: ids without an item are negatives and rivals")
    return found


def describe_protocol(
    config: RunConfig, leak: Mapping[str, Any] | None
) -> dict[str, Any]:
    """Returns the `protocol` part of a run's summary.

    Args:
      config: the configuration.
      leak: the result of `per_user.leak`, None if it was not measured.
    """
    return {
        "unsound": unsound_choices(config),
        "log_odds_over_popularity": None if leak is None else dict(leak),
    }
