"""Prepares a run: loads data, splits them, and pretrains on the server."""

import time
from typing import Any, NamedTuple

import jax
import numpy as np

from fedpeft_jax.core.errors import InputError
from fedpeft_jax.core.keys import RunPurpose, run_key
from fedpeft_jax.core.specs import name_of
from fedpeft_jax.core.typing import Array, Key
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
from fedpeft_jax.experiment.build import embedding_uses_text
from fedpeft_jax.experiment.config import RunConfig
from fedpeft_jax.experiment.machine import device_memory, host_memory
from fedpeft_jax.experiment.memory import check_memory
from fedpeft_jax.experiment.plugins import factory_of
from fedpeft_jax.experiment.reporting import Reporter, SilentReporter
from fedpeft_jax.features import (
    TextFeatures,
    encode_texts,
    load_text_embeddings,
    normalize_latents,
    random_latents,
)
from fedpeft_jax.federated.cohorts import check_cohort_size
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
    """

    dataset: Dataset
    split: Split
    candidates: np.ndarray
    item_features: ItemFeatures
    pretraining: dict[str, Any]
    load_s: float
    pretrain_s: float


def prepare(
    config: RunConfig,
    reporter: Reporter | None = None,
    dataset: Dataset | None = None,
) -> Prepared:
    """Loads and splits the data set, and pretrains item embeddings from text.

    Args:
      config: the configuration.
      reporter: receives notes and progress; None for no output.
      dataset: a data set that replaces the one that the configuration names.

    Returns:
      The input of the federated phases.

    Raises:
      InputError: for data or settings that cannot be used.
    """
    reporter = reporter or SilentReporter()
    start = time.perf_counter()
    if dataset is None:
        dataset = load(config.data, reporter.note, reporter.progress)
    dataset, split = make_split(dataset, config.data)
    patience = config.evaluation.early_stopping_rounds
    if patience and not len(split.held_out("valid").values):
        raise InputError(
            f"`early_stopping_rounds={patience}` needs validation items, and "
            f"{dataset.name} has none: set `valid_interactions`, or "
            "`early_stopping_rounds=0`"
        )
    load_s = time.perf_counter() - start
    reporter.note(
        f"{dataset.name}: {dataset.num_users} users "
        f"({len(split.evaluated)} evaluated), {dataset.num_items} items, "
        f"{len(split.train.values)} training pairs, split by {split.name}"
    )
    check_cohort_size(config.cohort_size(split.num_clients), split.num_clients)
    check_memory(config, split, host=host_memory(), device=device_memory())
    for note in dataset.notes:
        reporter.note(f"  {note}")
    _check_negatives(config, dataset, split)
    candidates = _candidates(config, dataset, split, reporter)
    start = time.perf_counter()
    key = run_key(config.run.seed, RunPurpose.PRETRAIN)
    item_features, pretraining = _item_features(config, dataset, split, key, reporter)
    seconds = time.perf_counter() - start
    return Prepared(
        dataset, split, candidates, item_features, pretraining, load_s, seconds
    )


def _candidates(
    config: RunConfig, dataset: Dataset, split: Split, reporter: Reporter
) -> np.ndarray:
    """Returns the candidates that are given, or draws them."""
    settings = config.evaluation
    source = candidates_source(config, dataset)
    if source is not None:
        candidates, notes = given_candidates(dataset, split, settings.given_candidates)
        facts = describe_candidates(source, candidates)
        reporter.note(
            f"  candidates of {source}: {facts['fewest']} to {facts['most']} per user"
        )
        for note in notes:
            reporter.note(f"  {note}")
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
        reporter.note(
            f"  {short} of {len(candidates)} evaluated users have fewer than "
            f"{settings.num_candidates} unseen items and are ranked with these"
        )
    if alone := int((candidates < 0).all(axis=1).sum()):
        if alone == len(candidates):
            raise InputError(
                f"{dataset.name}: no evaluated user has an unseen item to rank the "
                "held-out item against: use data with more items, or users with fewer"
            )
        reporter.note(
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
    config: RunConfig, dataset: Dataset, split: Split, key: Key, reporter: Reporter
) -> tuple[ItemFeatures, dict[str, Any]]:
    latents, encodings = None, None
    figures: dict[str, Any] = {}
    if config.uses_text:
        encodings, latents, figures = _learn_from_text(config, dataset, key, reporter)
    model, table = config.model, latents
    if model.full != "none" and (model.full_init == "random" or latents is None):
        table = random_latents(
            jax.random.fold_in(key, 1),
            dataset.num_items,
            model.features,
            model.latent_scale,
        )
    degrees = np.bincount(split.train.values, minlength=dataset.num_items)
    return ItemFeatures(encodings, latents, table, degrees.astype(np.int32)), figures


def _learn_from_text(
    config: RunConfig, dataset: Dataset, key: Key, reporter: Reporter
) -> tuple[np.ndarray, Array, dict[str, Any]]:
    text = _encode(config, dataset, reporter)
    reporter.note(f"item text: {text.source}, {text.encodings.shape[1]} dimensions")
    if missing := int(text.missing.sum()):
        reporter.note(f"  {missing} items without text start at the mean of the others")
    pretrain = factory_of("pretraining", config.text.pretraining)()
    pretrained = pretrain(
        key,
        text.encodings,
        latent=config.model.features,
        progress=lambda done, total, loss: reporter.progress(
            "pretraining", done, total, loss=loss
        ),
    )
    spread = pretrained.latent_spread
    name = name_of(config.text.pretraining)
    reporter.note(
        f"{name}: explains {pretrained.explained_variance:.3f} of the variance, "
        f"latent spread {spread.min():.3g} to {spread.max():.3g}"
    )
    figures = {
        "source": text.source,
        "items_without_text": missing,
        "explained_variance": float(pretrained.explained_variance),
        "latent_spread": [float(spread.min()), float(spread.max())],
    }
    latents = normalize_latents(pretrained.latents, config.model.latent_scale)
    return text.encodings, latents, figures


def _encode(config: RunConfig, dataset: Dataset, reporter: Reporter) -> TextFeatures:
    if config.text.text_embeddings is not None:
        counts = np.bincount(dataset.items.values, minlength=dataset.num_items)
        # An id without an interaction needs no text.
        return load_text_embeddings(
            config.text.text_embeddings, dataset.item_ids, optional=counts == 0
        )
    if dataset.item_text is None:
        needs_text = config.has_embedding and embedding_uses_text(config.model)
        other = "another `embedding`" if needs_text else "`full_init=random`"
        raise InputError(
            f"dataset {dataset.name!r} has no item text: "
            f"give `text_embeddings=FILE.npz`, or set {other}"
        )
    return encode_texts(
        dataset.item_text,
        config.text.text_encoder,
        seed=config.data.data_seed,
        note=reporter.note,
    )
