"""What a run's protocol is, and why its numbers may mean less than they seem to."""

from collections.abc import Mapping
from typing import Any

from fedpeft_jax.experiment.config import RunConfig


def unsound_choices(config: RunConfig) -> list[str]:
    """Returns what is unsound about the settings of an evaluation, a phrase each.

    Example:
      >>> unsound_choices(RunConfig())
      []
      >>> unsound_choices(RunConfig(split="file"))[0]
      'split=file: the order of the rows is no time, and may be the same for all users'
    """
    found = []
    if config.split == "file":
        found.append(
            "split=file: the order of the rows is no time, and may be the same for all "
            "users"
        )
    if config.train_negatives == "unseen":
        found.append(
            "train_negatives=unseen: that an item is never a negative tells that it is "
            "held out"
        )
    if not config.valid_items:
        found.append("valid_items=0: there is nothing to choose settings by")
    if config.negative_slots:
        found.append(
            f"negative_slots={config.negative_slots}: the other items are never "
            "negatives and never rivals"
        )
    if config.catalogue == "slots":
        found.append("catalogue=slots: ids without an item are negatives and rivals")
    return found


def describe_protocol(
    config: RunConfig, leak: Mapping[str, Any] | None
) -> dict[str, Any]:
    """Returns the `protocol` part of a run's summary.

    Args:
      config: the settings.
      leak: what `per_user.leak` found, None if it was not measured.
    """
    return {
        "unsound": unsound_choices(config),
        "log_odds_over_popularity": None if leak is None else dict(leak),
    }
