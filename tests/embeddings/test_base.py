"""Item embeddings: what each part holds, and what it computes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fedpeft_jax.core.errors import InputError
from fedpeft_jax.core.settings import Suggestions
from fedpeft_jax.embeddings import EMBEDDINGS, ItemEmbedding, ItemFeatures, LoRA
from tests.helpers import assert_same
from tests.toys import Codes

IDS = jnp.array([4, 0, 4])


@pytest.mark.parametrize("name", EMBEDDINGS)
def test_suggestions_are_typed(name):
    assert isinstance(EMBEDDINGS[name].suggestions, Suggestions)


def test_lora_is_a_product_of_two_thin_matrices():
    lora = LoRA(num_items=5, features=3, rank=2)
    variables = lora.init(jax.random.key(0), IDS)
    a, rng = variables["rows"]["A"], np.random.default_rng(0)
    b = jnp.asarray(rng.normal(size=(3, 2)), jnp.float32)
    variables = {"params": {"B": b}, "rows": {"A": a}}
    expected = np.asarray(a) @ np.asarray(b).T
    np.testing.assert_allclose(lora.apply(variables, None), expected, rtol=1e-5)
    np.testing.assert_allclose(lora.apply(variables, IDS), expected[IDS], rtol=1e-5)
    scaled = LoRA(num_items=5, features=3, rank=2, alpha=6.0)
    np.testing.assert_allclose(scaled.apply(variables), 3 * expected, rtol=1e-5)
    vector = jnp.array([1.0, -2.0, 0.5])
    np.testing.assert_allclose(
        scaled.apply(variables, None, vector, method="inner"),
        3 * expected @ vector,
        rtol=1e-4,
    )


def test_lora_starts_at_zero_beside_a_table_and_not_alone():
    for full, zero in [("frozen", True), ("trained", True), (None, False)]:
        model = ItemEmbedding(5, 3, full, LoRA)
        variables = model.init(jax.random.key(0), IDS)
        b = variables["params"]["compressed"]["B"]
        assert bool(jnp.all(b == 0)) == zero
        assert jnp.all(variables["rows"]["compressed"]["A"] != 0)


@pytest.mark.parametrize("rank", [0, -1, 2.0, "4", None])
def test_lora_refuses_a_rank_that_is_none(rank):
    with pytest.raises(InputError, match=r"rank.*try 'lora\(rank=4\)'"):
        LoRA(num_items=5, features=3, rank=rank)


def test_no_table_and_no_adapter_is_no_embedding():
    with pytest.raises(InputError, match="use `full=trained`, or name an `embedding`"):
        ItemEmbedding(5, 3, full=None, compressed=None)


@pytest.mark.parametrize(
    ("full", "compressed", "shapes"),
    [
        ("trained", None, {"rows": {"full": (5, 3)}}),
        ("frozen", None, {"frozen": {"full": (5, 3)}}),
        (
            "frozen",
            LoRA,
            {
                "frozen": {"full": (5, 3)},
                "params": {"compressed": {"B": (3, 4)}},
                "rows": {"compressed": {"A": (5, 4)}},
            },
        ),
        (
            None,  # no table at all
            LoRA,
            {
                "params": {"compressed": {"B": (3, 4)}},
                "rows": {"compressed": {"A": (5, 4)}},
            },
        ),
    ],
)
def test_variables_by_role(full, compressed, shapes):
    model = ItemEmbedding(5, 3, full, compressed)
    variables = model.init(jax.random.key(0), IDS)
    assert jax.tree.map(jnp.shape, variables) == shapes


def test_the_parts_add_up():
    model = ItemEmbedding(5, 3, "frozen", Codes)
    codebook = jnp.array([[1.0, 2.0, 3.0], [10.0, 20.0, 30.0], [0.0, 0.0, 0.0]])
    codes = jnp.array([0, 1, 1, 2, 0])
    full = jnp.arange(15.0).reshape(5, 3)
    variables = {
        "params": {"compressed": {"codebook": codebook}},
        "frozen": {"full": full, "compressed": {"codes": codes}},
    }
    np.testing.assert_array_equal(
        model.apply(variables, IDS), [[13, 15, 17], [1, 3, 5], [13, 15, 17]]
    )
    vector = jnp.array([1.0, 0.0, -1.0])
    inner = model.apply(variables, IDS, vector, method="inner")
    np.testing.assert_array_equal(inner, [-4, -4, -4])


def test_the_first_forward_of_peft_is_the_frozen_table_bit_for_bit():
    table = ItemEmbedding(5, 3, "frozen")
    peft = ItemEmbedding(5, 3, "frozen", LoRA)
    variables = peft.init(jax.random.key(0), IDS)
    frozen = {"frozen": {"full": variables["frozen"]["full"]}}
    vector = jnp.array([0.3, -0.1, 0.7])
    for ids in (None, IDS, jnp.int32(2)):
        assert_same(peft.apply(variables, ids), table.apply(frozen, ids))
        inner = [
            model.apply(v, ids, vector, method="inner")
            for model, v in [(peft, variables), (table, frozen)]
        ]
        assert_same(*inner)


@pytest.mark.parametrize("full", ["trained", "frozen", None])
def test_fit_fills_the_table_and_asks_the_adapter(full):
    latents = np.arange(15.0).reshape(5, 3)
    features = ItemFeatures(latents=latents, table=latents + 1)
    values, figures = ItemEmbedding(5, 3, full, Codes).fit(jax.random.key(0), features)
    assert figures == {"codes_used": 3}
    assert set(values["params"]) == {"compressed"}
    assert "codes" in values["frozen"]["compressed"]
    role = {"trained": "rows", "frozen": "frozen"}.get(full)
    for name in ("rows", "frozen"):
        assert ("full" in values.get(name, {})) == (name == role)
    if role:
        table = values[role]["full"]
        assert table.dtype == jnp.float32
        np.testing.assert_array_equal(table, latents + 1)


def test_fit_without_a_table_leaves_it_random():
    fitted = ItemEmbedding(5, 3, "trained", LoRA).fit(jax.random.key(0), ItemFeatures())
    assert fitted == ({}, {})
