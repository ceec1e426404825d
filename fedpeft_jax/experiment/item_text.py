"""Encodes item text and learns latents from it, on the server before the rounds."""

import pathlib
from typing import Any

import numpy as np

from fedpeft_jax.core.errors import InputError
from fedpeft_jax.core.specs import name_of
from fedpeft_jax.core.typing import Key
from fedpeft_jax.data import Dataset
from fedpeft_jax.experiment.build import embedding_uses_text
from fedpeft_jax.experiment.callbacks import Callback
from fedpeft_jax.experiment.config import RunConfig
from fedpeft_jax.experiment.kept_pretraining import Learned, inputs_of, recall
from fedpeft_jax.experiment.once import Once, make_anew
from fedpeft_jax.experiment.plugins import factory_of
from fedpeft_jax.features import TextFeatures, encode_texts, load_text_embeddings


def learn_from_text(
    config: RunConfig,
    dataset: Dataset,
    key: Key,
    callback: Callback,
    kept: pathlib.Path | None,
    once: Once = make_anew,
) -> tuple[np.ndarray, Learned, dict[str, Any]]:
    """Encodes the text of all items and pretrains latents from it.

    Args:
      config: the configuration.
      dataset: the data set.
      key: the key of the pretraining.
      callback: receives notes and progress.
      kept: the folder in which the run may have kept its pretraining.
      once: makes what several runs have in common.

    Returns:
      The encodings float32[I, F], the latents with what they were computed from, and
      figures for the summary.

    Raises:
      InputError: if there is no text, or it cannot be used.
    """
    text = once(
        ("item text", id(dataset), config.text, config.data.data_seed),
        lambda: _encode(config, dataset, callback),
    )
    callback.note(f"item text: {text.source}, {text.encodings.shape[1]} dimensions")
    if missing := int(text.missing.sum()):
        callback.note(f"  {missing} items without text start at the mean of the others")
    spec, features = config.text.pretraining, config.model.features
    inputs = inputs_of(spec, features, key, text.encodings)
    pretrained = recall(kept, inputs, callback.note)
    if pretrained is None:
        pretrain = factory_of("pretraining", spec)()
        pretrained = once(
            ("pretraining", inputs),
            lambda: pretrain(
                key,
                text.encodings,
                latent=features,
                progress=lambda done, total, loss: callback.progress(
                    "pretraining", done, total, loss=loss
                ),
            ),
        )
    spread = pretrained.latent_spread
    name = name_of(config.text.pretraining)
    callback.note(
        f"{name}: explains {pretrained.explained_variance:.3f} of the variance, "
        f"latent spread {spread.min():.3g} to {spread.max():.3g}"
    )
    figures = {
        "source": text.source,
        "items_without_text": missing,
        "explained_variance": float(pretrained.explained_variance),
        "latent_spread": [float(spread.min()), float(spread.max())],
    }
    return text.encodings, Learned(inputs, pretrained), figures


def _encode(config: RunConfig, dataset: Dataset, callback: Callback) -> TextFeatures:
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
        note=callback.note,
    )
