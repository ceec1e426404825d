"""Everything before the first round: data, split, and what text says of the items."""

import dataclasses
import enum
import time
from typing import Any, NamedTuple

import jax
import numpy as np

from fedpeft_jax.core.errors import InputError
from fedpeft_jax.core.typing import Array, Key
from fedpeft_jax.data import Dataset, Split, load, make_split, sample_candidates
from fedpeft_jax.embeddings import ItemFeatures
from fedpeft_jax.experiment.config import RunConfig
from fedpeft_jax.experiment.reporting import Reporter
from fedpeft_jax.features import (
    TextFeatures,
    encode_texts,
    load_text_embeddings,
    normalize_latents,
    pretrain_autoencoder,
    random_latents,
)
from fedpeft_jax.federated.cohorts import check_cohort_size


class RunPurpose(enum.IntEnum):
    """What the run's key is folded with."""

    PRETRAIN = 0
    SERVER = 1
    PRIVATE = 2
    ADAPTER = 3
    ROUNDS = 4


class Prepared(NamedTuple):
    """The input of the federated phases.

    Attributes:
      dataset: the users, items and histories that were split.
      split: the clients' training, validation and test items.
      candidates: int32[E, num_candidates], for the sampled ranking.
      item_features: what the server knows of the items.
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
    config: RunConfig, reporter: Reporter, dataset: Dataset | None = None
) -> Prepared:
    """Loads and splits the data set, and pretrains item embeddings from text.

    Args:
      config: the settings.
      reporter: hears of progress.
      dataset: the data set, if it need not be loaded.

    Raises:
      InputError: for data or settings that cannot be used.
    """
    start = time.perf_counter()
    if dataset is None:
        dataset = load(
            config,
            reporter.note,
            lambda name, done, total: reporter.progress(name, done, total),
        )
    dataset, split = make_split(dataset, config)
    load_s = time.perf_counter() - start
    reporter.note(
        f"{dataset.name}: {dataset.num_users} users "
        f"({len(split.evaluated)} evaluated), {dataset.num_items} items, "
        f"{len(split.train)} training pairs, split by {split.name}"
    )
    check_cohort_size(config.cohort(split.num_clients), split.num_clients)
    for note in dataset.notes:
        reporter.note(f"  {note}")
    candidates = sample_candidates(
        dataset,
        split,
        config.num_candidates,
        config.data_seed,
        kind=config.candidates,
        slots=config.negative_slots,
    )
    if short := int((candidates < 0).any(axis=1).sum()):
        reporter.note(
            f"  {short} of {len(candidates)} evaluated users have fewer than "
            f"{config.num_candidates} unseen items: ranked against those"
        )
    start = time.perf_counter()
    key = jax.random.fold_in(jax.random.key(config.seed), RunPurpose.PRETRAIN)
    item_features, pretraining = _item_features(config, dataset, split, key, reporter)
    seconds = time.perf_counter() - start
    return Prepared(
        dataset, split, candidates, item_features, pretraining, load_s, seconds
    )


def _item_features(
    config: RunConfig, dataset: Dataset, split: Split, key: Key, reporter: Reporter
) -> tuple[ItemFeatures, dict[str, Any]]:
    latents, encodings = None, None
    figures: dict[str, Any] = {}
    if config.uses_text:
        encodings, latents, figures = _learn_from_text(config, dataset, key, reporter)
    table = latents
    if config.full != "none" and (config.full_init == "random" or latents is None):
        table = random_latents(
            jax.random.fold_in(key, 1),
            dataset.num_items,
            config.features,
            config.value("latent_scale"),
        )
    degrees = np.bincount(split.train, minlength=dataset.num_items).astype(np.int32)
    return ItemFeatures(encodings, latents, table, degrees), figures


def _learn_from_text(
    config: RunConfig, dataset: Dataset, key: Key, reporter: Reporter
) -> tuple[np.ndarray, Array, dict[str, Any]]:
    text = _encode(config, dataset)
    reporter.note(f"item text: {text.source}, {text.encodings.shape[1]} dimensions")
    if missing := int(text.missing.sum()):
        reporter.note(f"  {missing} items without text start at the mean of the others")
    pretrained = pretrain_autoencoder(
        key,
        text.encodings,
        latent=config.features,
        progress=lambda done, total, loss: reporter.progress(
            "pretraining", done, total, loss=loss
        ),
    )
    spread = pretrained.latent_spread
    reporter.note(
        f"autoencoder: explains {pretrained.explained_variance:.3f} of the variance, "
        f"latent spread {spread.min():.3g} to {spread.max():.3g}"
    )
    figures = {
        "source": text.source,
        "items_without_text": missing,
        "explained_variance": float(pretrained.explained_variance),
        "latent_spread": [float(spread.min()), float(spread.max())],
    }
    latents = normalize_latents(pretrained.latents, config.value("latent_scale"))
    return text.encodings, latents, figures


def _encode(config: RunConfig, dataset: Dataset) -> TextFeatures:
    if config.text_embeddings is not None:
        counts = np.bincount(dataset.items, minlength=dataset.num_items)
        # Nobody needs a text for an id without an interaction.
        return load_text_embeddings(
            config.text_embeddings, dataset.item_ids, optional=counts == 0
        )
    if dataset.item_text is None:
        needs_text = dataclasses.replace(config, full_init="random").uses_text
        other = "another --embedding" if needs_text else "--full_init=random"
        raise InputError(
            f"dataset {dataset.name!r} has no item text: "
            f"give --text_embeddings=FILE.npz, or set {other}"
        )
    return encode_texts(dataset.item_text, config.text_encoder, seed=config.data_seed)
