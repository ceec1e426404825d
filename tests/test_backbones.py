"""Recommenders against scores worked out by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fedpeft_jax.backbones import FedMF
from fedpeft_jax.embeddings import ItemEmbedding, ItemFeatures, LoRA
from fedpeft_jax.roles import TRAINED
from fedpeft_jax.typing import History
from tests.toys import Codes

HISTORY = History(jnp.array([0]), jnp.array([True]))
IDS = jnp.array([2, 0])


def apply(model, variables, ids):
    return model.apply(variables, HISTORY, ids, deterministic=True, method="score")


def test_fedmf_is_a_dot_product_with_a_private_vector():
    model = FedMF(item_embedding=ItemEmbedding(3, 2))
    table = jnp.array([[1.0, 2.0], [3.0, 4.0], [5.0, -6.0]])
    variables = {
        "rows": {"item_embedding": {"full": table}},
        "private": {"user": jnp.array([10.0, 1.0])},
    }
    assert apply(model, variables, IDS).tolist() == [44.0, 12.0]
    assert apply(model, variables, None).tolist() == [12.0, 34.0, 44.0]
    assert apply(model, variables, jnp.int32(1)).tolist() == 34.0


def test_fedmf_draws_users_from_their_own_keys_and_trains_all_at_once():
    assert FedMF.private_init == "per_client"
    assert FedMF.local_schedule == (TRAINED,)
    model = FedMF(item_embedding=ItemEmbedding(3, 200), init_scale=0.5)
    variables = model.init(
        jax.random.key(0), HISTORY, IDS, deterministic=True, method="score"
    )
    assert float(variables["private"]["user"].std()) == pytest.approx(0.5, rel=0.2)


def test_fit_is_the_embeddings_fit_under_its_name():
    latents = np.arange(6.0).reshape(3, 2)
    values = FedMF(item_embedding=ItemEmbedding(3, 2, "frozen", Codes)).fit(
        jax.random.key(0), ItemFeatures(None, latents)
    )
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
