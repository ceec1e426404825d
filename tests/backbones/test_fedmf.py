"""FedMF against scores worked out by hand."""

import jax
import jax.numpy as jnp
import pytest

from fedpeft_jax.backbones import FedMF, schedule_of
from fedpeft_jax.core.roles import TRAINED
from fedpeft_jax.core.typing import History
from fedpeft_jax.embeddings import ItemEmbedding

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
    model = FedMF(item_embedding=ItemEmbedding(3, 200), init_mean=2.0, init_scale=0.5)
    assert schedule_of(model) == (TRAINED,)
    variables = model.init(
        jax.random.key(0), HISTORY, IDS, deterministic=True, method="score"
    )
    user = variables["private"]["user"]
    assert float(user.std()) == pytest.approx(0.5, rel=0.2)
    assert float(user.mean()) == pytest.approx(2.0, rel=0.1)
