"""Shares what the server learns from item text between the cells of a grid.

Cells with the same data, text, width and seed learn the same latents. The first of them
keeps a copy in the grid's folder, and the others begin with it.
"""

import contextlib
import hashlib
import pathlib
import shutil

from fedpeft_jax.experiment import RunConfig, RunFolder
from fedpeft_jax.experiment.identity import FREE


def pretraining_group(config: RunConfig) -> str | None:
    """Returns a name that is equal for cells with the same pretraining.

    Args:
      config: the configuration of a cell.

    Returns:
      The name of a folder; None if the cell reads no text.

    Example:
      >>> from fedpeft_jax import configure
      >>> one, other = (configure(seed=s, rounds=30, eval_every=5) for s in (0, 1))
      >>> pretraining_group(one) == pretraining_group(other)
      False
    """
    if not config.uses_text:
        return None
    data = {k: v for k, v in vars(config.data).items() if k not in FREE}
    facts = (data, vars(config.text), config.model.features, config.run.seed)
    return hashlib.sha256(repr(facts).encode()).hexdigest()[:16]


def take_pretraining(
    folder: RunFolder, config: RunConfig, shared: pathlib.Path
) -> None:
    """Copies a shared pretraining to the folder of a run that has none yet.

    Args:
      folder: the folder of the run.
      config: the configuration of the run.
      shared: the folder of the pretraining, which need not exist.
    """
    if not shared.is_dir() or folder.pretrained.is_dir():
        return
    if folder.held_config() is None:  # the folder of a run has one before all else
        folder.write_config(config.flat())
    _copy(shared, folder.pretrained)


def give_pretraining(folder: RunFolder, shared: pathlib.Path) -> None:
    """Copies the pretraining of a run to the shared folder, unless it is there."""
    if folder.pretrained.is_dir() and not shared.is_dir():
        _copy(folder.pretrained, shared)


def _copy(source: pathlib.Path, target: pathlib.Path) -> None:
    """Copies a folder, completely or not at all; a failure only costs time."""
    aside = target.with_name(f".{target.name}.partial")
    with contextlib.suppress(OSError):
        shutil.rmtree(aside, ignore_errors=True)
        shutil.copytree(source, aside)
        aside.rename(target)
