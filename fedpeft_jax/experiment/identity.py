"""What makes two runs the same: their settings and their prepared data.

A run that continues another one must be the same run, or its result would be the result
of no configuration. Some settings do not change the result, and may differ.
"""

import dataclasses
import hashlib
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np

from fedpeft_jax.core.errors import InputError
from fedpeft_jax.experiment.config import RunConfig
from fedpeft_jax.experiment.earlier import EARLIER
from fedpeft_jax.experiment.preparation import Prepared

# They say where things are and how a run is kept. The result does not depend on them.
FREE = (
    *("out", "resume", "checkpoint_every", "keep_checkpoints"),
    *("fetch", "cache", "tensorboard"),
)
# They name files. The prepared data are compared instead.
_PLACES = (
    "data_dir", "interactions", "valid_interactions", "test_interactions", "items",
    "text_embeddings", "given_candidates",
)  # fmt: skip
# They change only the summary, which is written again.
SUMMARY = ("uplink_mbps", "downlink_mbps")


def differences(
    held: Mapping[str, Any], config: Mapping[str, Any], *, places: bool
) -> dict[str, tuple[Any, Any]]:
    """Returns the settings that keep two runs from being the same.

    Args:
      held: the settings of a run in a folder.
      config: the settings of the run that would continue it.
      places: whether the locations of files count, and what only the summary holds.

    Returns:
      The value in the folder and the new value by setting. `rounds` is among them if it
      is lower than in the folder, or if the noise of the run depends on it.

    Example:
      >>> differences({"seed": 0, "out": "a"}, {"seed": 1, "out": "b"}, places=True)
      {'seed': (0, 1)}
      >>> differences({"rounds": 100}, {"rounds": 200}, places=True)
      {}
      >>> private = {"target_epsilon": 2.0}
      >>> differences(
      ...     {"rounds": 100, **private}, {"rounds": 200, **private}, places=True
      ... )
      {'rounds': (100, 200)}
    """
    found, held, config = {}, {**EARLIER, **held}, {**EARLIER, **config}
    for name in sorted({*held, *config}):
        old, new = held.get(name), config.get(name)
        free = name in FREE or (name in _PLACES + SUMMARY and not places)
        grows = name == "rounds" and isinstance(old, int) and old <= config[name]
        grows &= config.get("target_epsilon") is None  # which fixes noise by length
        if old != new and not free and not grows:
            found[name] = (old, new)
    return found


def check_same_settings(
    held: Mapping[str, Any], config: Mapping[str, Any], where: str
) -> None:
    """Raises InputError with the differences if two runs are not the same.

    Args:
      held: the settings of the run in the folder.
      config: the settings of the run that would continue it.
      where: the folder, for the message.

    Example:
      >>> check_same_settings({"seed": 0}, {"seed": 1}, "runs/a")
      Traceback (most recent call last):
      ...
      fedpeft_jax.InputError: runs/a holds a run with other settings: seed is 0 there
      and 1 here; use the same ones, or set `out` to a new folder
    """
    found = differences(held, config, places=False)
    if not found:
        return
    listed = ", ".join(
        f"{k} is {a!r} there and {b!r} here" for k, (a, b) in found.items()
    )
    also = " (`rounds` may only grow)" if "rounds" in found else ""
    if also and config.get("target_epsilon") is not None:
        also = " (`target_epsilon` computes the noise from `rounds`)"
    raise InputError(
        f"{where} holds a run with other settings: {listed}{also}; use the same ones, "
        "or set `out` to a new folder"
    )


def fingerprint(config: RunConfig, prepared: Prepared) -> str:
    """Returns the SHA-256 of the data that a run is trained and evaluated with.

    What the server computes from item text is not part of it, because another machine
    computes other last digits.

    Args:
      config: the configuration.
      prepared: data and pretraining.
    """
    dataset = prepared.dataset
    text: Any = dataset.item_text if config.uses_text else None
    if config.text.text_embeddings is not None:
        text = prepared.item_features.encodings
    parts = (
        dataset.user_ids, dataset.item_ids, prepared.split, prepared.candidates, text,
    )  # fmt: skip
    digest = hashlib.sha256()
    for part in _plain(parts):
        digest.update(part)
    return digest.hexdigest()


def _plain(value: Any) -> Iterator[bytes]:
    """Yields the content of nested tuples and dataclasses, each with its type."""
    if dataclasses.is_dataclass(value):
        # What a split of one held-out item per client does not have is None.
        value = tuple(field for field in vars(value).values() if field is not None)
    if isinstance(value, tuple):
        yield b"tuple %d " % len(value)
        for part in value:
            yield from _plain(part)
    elif isinstance(value, np.ndarray | jax.Array):
        array = np.ascontiguousarray(value)
        yield f"{array.dtype.str} {array.shape} ".encode()
        yield array.tobytes()
    else:
        yield f"{value!r} ".encode()
