"""Merges change no item embedding, whatever the compressed embedding is."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fedpeft_jax.backbones import merge_adapter
from fedpeft_jax.core.errors import InputError
from fedpeft_jax.core.roles import FROZEN, ROWS, SHARED
from fedpeft_jax.embeddings import EMBEDDINGS, can_restart
from fedpeft_jax.experiment import configure, make_model
from fedpeft_jax.federated import init_server

pytestmark = pytest.mark.usefixtures("quick_compilation")

I, D = 30, 8  # noqa: E741 (the shape letters of the library)
SPECS = (
    "lora(rank=3)",
    "lora(rank=3, alpha=6.0)",
    "lora(rank=9)",
    "lora(rank=2, train_b=False)",
    "hash(num_buckets=7)",
    "hash(num_buckets=7, signed=True)",
    "hash(num_buckets=7, num_hashes=3, pooling='senet')",
    "rq(num_codebooks=2, codebook_size=6)",
)


def model_of(embedding, backbone="fedmf"):
    config = configure(
        embedding=embedding, features=D, backbone=backbone, merge_every=5
    )
    return make_model(config.model, I)


def trained(model):
    """The server's variables with random values in place of the initial ones."""
    server = init_server(model, jax.random.key(0))
    rng = np.random.default_rng(1)

    def draw(x):
        if x.dtype != "float32":
            return x
        return jnp.asarray(rng.normal(size=x.shape), jnp.float32)

    return jax.tree.map(draw, server)


def merged(model, server, draw=0):
    """The variables after a merge; every call has a key of its own."""
    return merge_adapter(model, server, jax.random.fold_in(jax.random.key(7), draw))


def items(server):
    return {role: tree.get("item_embedding", {}) for role, tree in server.items()}


def test_every_registered_embedding_is_merged_here():
    assert {spec.partition("(")[0] for spec in SPECS} == set(EMBEDDINGS)


@pytest.mark.parametrize("spec", SPECS)
def test_a_merge_changes_no_item_embedding(spec):
    model = model_of(spec)
    embedding, before = model.item_embedding, trained(model)
    after = merged(model, before)
    old, new = embedding.apply(items(before)), embedding.apply(items(after))
    np.testing.assert_allclose(new, old, atol=1e-6, rtol=1e-6)
    adapter = jnp.abs(new - items(after)[FROZEN]["full"]).max()
    assert float(adapter) == 0.0
    assert float(jnp.abs(new - items(before)[FROZEN]["full"]).max()) > 0.1
    like = jax.tree.map(lambda x: (x.shape, x.dtype), before)
    assert jax.tree.map(lambda x: (x.shape, x.dtype), after) == like


@pytest.mark.parametrize("spec", SPECS)
def test_every_draw_is_another_one(spec):
    model = model_of(spec)
    before = trained(model)
    draws = [merged(model, before, m) for m in (0, 1)]
    again = merged(model, before, 0)
    same = jax.tree.map(np.array_equal, draws[0], again)
    assert all(jax.tree.leaves(same))
    same = jax.tree.map(np.array_equal, draws[0], draws[1])
    assert not all(jax.tree.leaves(same))


def test_lora_restarts_with_an_orthonormal_side():
    after = merged(model := model_of(SPECS[0]), trained(model))
    matrix = items(after)[SHARED]["compressed"]["B"]
    np.testing.assert_allclose(matrix.T @ matrix, np.eye(3), atol=1e-6)
    assert not np.any(items(after)[ROWS]["compressed"]["A"])
    scaled = model_of("lora(rank=3, restart_scale=2.0)")
    matrix = items(merged(scaled, trained(scaled)))[SHARED]["compressed"]
    np.testing.assert_allclose(matrix["B"].T @ matrix["B"], 4 * np.eye(3), atol=1e-5)


def test_random_codes_are_used_equally_often():
    after = merged(model := model_of(SPECS[-1]), trained(model))
    codes = np.asarray(items(after)[FROZEN]["compressed"]["codes"])
    for column in codes.T:
        assert np.bincount(column, minlength=6).tolist() == [I // 6] * 6
    assert len(np.unique(codes, axis=0)) > I // 2


def test_other_shared_parameters_are_kept():
    model = model_of(SPECS[0], "fedncf(hidden=(4,))")
    before = trained(model)
    after = merged(model, before)
    kept = {k: v for k, v in before[SHARED].items() if k != "item_embedding"}
    assert kept
    found = {k: v for k, v in after[SHARED].items() if k != "item_embedding"}
    assert jax.tree.all(jax.tree.map(np.array_equal, kept, found))


def test_what_clients_do_not_train_has_no_gradient():
    model = model_of("lora(rank=2, train_b=False)")
    variables = items(trained(model))

    def total(shared):
        return model.item_embedding.apply({**variables, SHARED: shared}).sum()

    gradient = jax.grad(total)(variables[SHARED])["compressed"]["B"]
    assert not np.any(gradient)


def test_signs_are_balanced_and_cancel_collisions():
    """With signs, items that share a bucket do not share their vector."""
    model = model_of("hash(num_buckets=1, num_hashes=1, signed=True)")
    variables = items(trained(model))
    rows = model.item_embedding.apply(variables) - variables[FROZEN]["full"]
    signs = np.sign(rows[:, 0] / rows[0, 0])
    np.testing.assert_allclose(np.abs(rows), np.abs(rows[:1]).repeat(I, 0), rtol=1e-4)
    assert 5 < np.sum(signs > 0) < I - 5


def test_merges_need_an_adapter_that_can_restart(monkeypatch):
    with pytest.raises(InputError, match="merge_every=5.*merge_every=0"):
        configure(full="trained", embedding="none", merge_every=5)
    with pytest.raises(InputError, match="merge_every=5.*merge_every=0"):
        configure(full="none", merge_every=5)
    assert can_restart(model_of(SPECS[0]).item_embedding.adapter_alone())
    from tests import toys

    monkeypatch.setitem(EMBEDDINGS, "codes", toys.Codes)
    with pytest.raises(InputError, match="cannot start anew.*merge_every=0"):
        configure(embedding="codes", merge_every=5)
    assert configure(embedding="codes").run.merge_every == 0
