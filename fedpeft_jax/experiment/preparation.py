"""Prepares a run: loads data, splits them, and pretrains on the server."""

import pathlib
import time
from typing import Any, NamedTuple

import jax
import numpy as np

from fedpeft_jax.core.errors import InputError
from fedpeft_jax.core.keys import RunPurpose, run_key
from fedpeft_jax.core.sampling import check_sampling
from fedpeft_jax.core.typing import Key
from fedpeft_jax.data import (
    Dataset,
    Split,
    describe_candidates,
    given_candidates,
    load,
    make_split,
    sample_candidates,
)
from fedpeft_jax.embeddings import ItemFeatures
from fedpeft_jax.experiment.callbacks import Callback, Callbacks
from fedpeft_jax.experiment.config import RunConfig
from fedpeft_jax.experiment.item_text import learn_from_text
from fedpeft_jax.experiment.kept_pretraining import Learned
from fedpeft_jax.experiment.machine import device_memory, host_memory
from fedpeft_jax.experiment.memory import check_memory
from fedpeft_jax.experiment.once import Once, make_anew
from fedpeft_jax.features import (
    normalize_latents,
    random_latents,
)
from fedpeft_jax.federated.published_sampler import lack_negatives


class Prepared(NamedTuple):
    """The input of the federated phases.

    Attributes:
      dataset: the users, items and histories that were split.
      split: the clients' training, validation and test items.
      candidates: int32[E, num_candidates], for each evaluated client the items among
        which its target is ranked in the sampled ranking; -1 is padding.
      item_features: what the server has about the items before the first round.
      pretraining: figures for the summary; empty if nothing was pretrained.
      load_s: seconds of loading, filtering and splitting.
      pretrain_s: seconds of encoding and pretraining.
      learned: the result of the pretraining; None if the model reads no text.
    """

    dataset: Dataset
    split: Split
    candidates: np.ndarray
    item_features: ItemFeatures
    pretraining: dict[str, Any]
    load_s: float
    pretrain_s: float
    learned: Learned | None = None


def prepare(
    config: RunConfig,
    callback: Callback | None = None,
    dataset: Dataset | None = None,
    kept: pathlib.Path | None = None,
    once: Once = make_anew,
) -> Prepared:
    """Loads and splits the data set, and pretrains item embeddings from text.

    Args:
      config: the configuration.
      callback: receives notes and progress; None for no output.
      dataset: a data set that replaces the one that the configuration names.
      kept: the folder in which the run may have kept its pretraining.
      once: makes what several runs have in common.

    Returns:
      The input of the federated phases.

    Raises:
      InputError: for data or settings that cannot be used.
    """
    callback = callback or Callbacks()
    start = time.perf_counter()
    given = dataset

    def make() -> tuple[Dataset, Split]:
        loaded = given
        if loaded is None:
            loaded = load(config.data, callback.note, callback.progress)
        return make_split(loaded, config.data)

    dataset, split = once(("split", id(given), config.data), make)
    patience = config.evaluation.early_stopping_rounds
    if patience and not len(split.held_out("valid").values):
        raise InputError(
            f"`early_stopping_rounds={patience}` needs validation items, and "
            f"{dataset.name} has none: set `valid_interactions`, or "
            "`early_stopping_rounds=0`"
        )
    load_s = time.perf_counter() - start
    callback.note(
        f"{dataset.name}: {dataset.num_users} users "
        f"({len(split.evaluated)} evaluated), {dataset.num_items} items, "
        f"{len(split.train.values)} training pairs, split by {split.name}"
    )
    check_sampling(config.sampling(split.num_clients))
    check_memory(config, split, host=host_memory(), device=device_memory())
    for note in dataset.notes:
        callback.note(f"  {note}")
    _check_negatives(config, dataset, split)
    candidates = once(
        ("candidates", id(split), config.evaluation, config.training.negative_slots),
        lambda: _candidates(config, dataset, split, callback),
    )
    start = time.perf_counter()
    key = run_key(config.run.seed, RunPurpose.PRETRAIN)
    item_features, pretraining, learned = _item_features(
        config, dataset, split, key, callback, kept, once
    )
    seconds = time.perf_counter() - start
    return Prepared(
        dataset, split, candidates, item_features, pretraining, load_s, seconds, learned
    )


def _candidates(
    config: RunConfig, dataset: Dataset, split: Split, callback: Callback
) -> np.ndarray:
    """Returns the candidates that are given, or draws them."""
    settings = config.evaluation
    source = candidates_source(config, dataset)
    if source is not None:
        candidates, notes = given_candidates(dataset, split, settings.given_candidates)
        facts = describe_candidates(source, candidates)
        callback.note(
            f"  candidates of {source}: {facts['fewest']} to {facts['most']} per user"
        )
        for note in notes:
            callback.note(f"  {note}")
        return candidates
    candidates = sample_candidates(
        dataset,
        split,
        settings.num_candidates,
        config.data.data_seed,
        kind=settings.candidates,
        slots=config.training.negative_slots,
    )
    if short := int((candidates < 0).any(axis=1).sum()):
        callback.note(
            f"  {short} of {len(candidates)} evaluated users have fewer than "
            f"{settings.num_candidates} unseen items and are ranked with these"
        )
    if alone := int((candidates < 0).all(axis=1).sum()):
        if alone == len(candidates):
            raise InputError(
                f"{dataset.name}: no evaluated user has an unseen item to rank the "
                "held-out item against: use data with more items, or users with fewer"
            )
        callback.note(
            f"  {alone} of {len(candidates)} evaluated users have no unseen item: "
            "their held-out item is ranked alone, which counts as rank 1"
        )
    return candidates


def candidates_source(config: RunConfig, dataset: Dataset) -> str | None:
    """Returns where given candidates come from; None if they are drawn.

    Args:
      config: the configuration.
      dataset: the data set, which may have candidates.

    Raises:
      InputError: if there are two tables of candidates.
    """
    file = config.evaluation.given_candidates
    if dataset.candidates is None:
        return file
    if file is not None:
        raise InputError(
            f"`given_candidates={file}`: the data set has candidates, too: leave one "
            "of them out"
        )
    return "from_frame"


def _check_negatives(config: RunConfig, dataset: Dataset, split: Split) -> None:
    """Raises InputError if there is a client for which no negative can be drawn."""
    slots = config.training.negative_slots
    lacking = lack_negatives(
        split,
        num_slots=min(slots, dataset.num_items),
        exclude_held_out=config.training.train_negatives == "unseen",
    )
    if lacking.any():
        first = dataset.user_ids[lacking.argmax()].item()
        remedy = (
            "raise `negative_slots`"
            if slots
            else "set `train_negatives=unseen_in_training`"
        )
        raise InputError(
            f"{dataset.name}: {int(lacking.sum())} users have interacted with every "
            f"item that can be a negative (the first is {first!r}): {remedy}, or leave "
            "these users out"
        )


def _item_features(
    config: RunConfig,
    dataset: Dataset,
    split: Split,
    key: Key,
    callback: Callback,
    kept: pathlib.Path | None,
    once: Once,
) -> tuple[ItemFeatures, dict[str, Any], Learned | None]:
    latents, encodings, learned = None, None, None
    figures: dict[str, Any] = {}
    if config.uses_text:
        encodings, learned, figures = learn_from_text(
            config, dataset, key, callback, kept, once
        )
        latents = normalize_latents(
            learned.pretrained.latents, config.model.latent_scale
        )
    model, table = config.model, latents
    if model.full != "none" and (model.full_init == "random" or latents is None):
        table = random_latents(
            jax.random.fold_in(key, 1),
            dataset.num_items,
            model.features,
            model.latent_scale,
        )
    degrees = np.bincount(split.train.values, minlength=dataset.num_items)
    features = ItemFeatures(encodings, latents, table, degrees.astype(np.int32))
    return features, figures, learned
