"""What all recommenders share: fitted values, PEFT's first scores, suggestions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fedpeft_jax.backbones import BACKBONES, FedMF, fit_model
from fedpeft_jax.core.settings import Suggestions
from fedpeft_jax.core.typing import History
from fedpeft_jax.embeddings import ItemEmbedding, ItemFeatures, LoRA
from tests.toys import Codes

HISTORY = History(jnp.array([0]), jnp.array([True]))
IDS = jnp.array([2, 0])


def apply(model, variables, ids):
    return model.apply(variables, HISTORY, ids, deterministic=True, method="score")


@pytest.mark.parametrize("name", BACKBONES)
def test_suggestions_are_typed(name):
    assert isinstance(BACKBONES[name].suggestions, Suggestions)


def test_fit_is_the_embeddings_fit_under_its_name():
    latents = np.arange(6.0).reshape(3, 2)
    model = FedMF(item_embedding=ItemEmbedding(3, 2, "frozen", Codes))
    features = ItemFeatures(None, latents, latents)
    values, figures = fit_model(model, jax.random.key(0), features)
    assert figures == {"codes_used": 3}
    assert set(values) == {"frozen", "params"}
    for tree in values.values():
        assert set(tree) == {"item_embedding"}
    np.testing.assert_array_equal(values["frozen"]["item_embedding"]["full"], latents)


def test_the_first_peft_scores_are_the_frozen_models_bit_for_bit():
    peft = FedMF(item_embedding=ItemEmbedding(3, 2, "frozen", LoRA))
    variables = peft.init(
        jax.random.key(0), HISTORY, IDS, deterministic=True, method="score"
    )
    full = variables["frozen"]["item_embedding"]["full"]
    plain = FedMF(item_embedding=ItemEmbedding(3, 2, "frozen"))
    frozen = {
        "frozen": {"item_embedding": {"full": full}},
        "private": variables["private"],
    }
    for ids in (None, IDS):
        np.testing.assert_array_equal(
            apply(peft, variables, ids), apply(plain, frozen, ids)
        )
