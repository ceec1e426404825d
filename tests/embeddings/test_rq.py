"""RQ codebooks: the sum of code vectors, where codes come from, how they start."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fedpeft_jax.core.errors import InputError
from fedpeft_jax.core.specs import resolve
from fedpeft_jax.embeddings import EMBEDDINGS, RQ, ItemEmbedding, ItemFeatures

I, D = 60, 4  # noqa: E741 (the shape letters of the library)
SIZES = {"num_codebooks": 2, "codebook_size": 6}
RNG = np.random.default_rng(0)
LATENTS = np.float32(0.5 * RNG.normal(size=(I, D)))
ENCODINGS = np.float32(LATENTS @ RNG.normal(size=(D, 12)))
FEATURES = ItemFeatures(ENCODINGS, LATENTS, LATENTS)


def test_an_item_is_the_sum_of_its_code_vectors():
    model = RQ(I, D, num_codebooks=3, codebook_size=5)
    variables = model.init(jax.random.key(0), None)
    codes = np.asarray(variables["frozen"]["codes"])
    assert codes.shape == (I, 3) and codes.max() < 5 and codes.dtype == np.uint8
    books = RNG.normal(size=(3, 5, D))
    variables = {**variables, "params": {"codebooks": jnp.float32(books)}}
    expected = np.zeros((I, D))
    for item in range(I):
        for level in range(3):
            expected[item] += books[level, codes[item, level]]
    np.testing.assert_allclose(model.apply(variables), expected, rtol=1e-5, atol=1e-6)
    ids = jnp.array([[7, 0], [7, 59]])
    np.testing.assert_allclose(
        model.apply(variables, ids), expected[np.asarray(ids)], rtol=1e-5, atol=1e-6
    )
    vector = np.float32([1.0, -2.0, 0.5, 0.25])
    inner = model.apply(variables, ids, vector, method="inner")
    np.testing.assert_allclose(
        inner, expected[np.asarray(ids)] @ vector, rtol=1e-4, atol=1e-5
    )
    weights = np.float32([0.5, -1.0, 2.0])
    items = jnp.array([3, 9, 3])
    total = model.apply(variables, items, weights, method="weighted_sum")
    np.testing.assert_allclose(
        total, weights @ expected[[3, 9, 3]], rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize("quantizer", ["kmeans", "rqvae"])
def test_fit_reads_codes_from_text_and_reports_them(quantizer):
    model = RQ(I, D, True, **SIZES, quantizer=quantizer)
    values, figures = model.fit(jax.random.key(0), FEATURES)
    codes = np.asarray(values["frozen"]["codes"])
    assert codes.shape == (I, 2) and codes.dtype == np.uint8 and codes.max() < 6
    norms = figures["residual_norms"]
    assert len(norms) == 3 and norms[0] > norms[1] > norms[2]
    distinct = len({tuple(code) for code in codes})
    assert figures["distinct_codes"] == distinct
    assert (figures["collision_rate"] > 0) == (distinct < I)
    assert len(figures["perplexity"]) == len(figures["dead_codes"]) == 2
    # Items with close text share more of their codes than others.
    same = (codes[:, None] == codes[None]).sum(-1)[np.triu_indices(I, 1)]
    distance = np.linalg.norm(LATENTS[:, None] - LATENTS[None], axis=-1)
    distance = distance[np.triu_indices(I, 1)]
    assert distance[same >= 1].mean() < 0.9 * distance[same == 0].mean()


@pytest.mark.parametrize("quantizer", ["kmeans", "rqvae"])
def test_alone_it_starts_at_the_pretrained_codebooks_and_the_latents_scale(quantizer):
    model = RQ(I, D, True, num_codebooks=2, codebook_size=16, quantizer=quantizer)
    values, _ = model.fit(jax.random.key(0), FEATURES)
    variables = {"frozen": values["frozen"], "params": values["params"]}
    vectors = np.asarray(model.apply(variables))
    np.testing.assert_allclose(vectors.mean(axis=0), 0, atol=0.15)
    # What quantisation loses is missing from the spread of the latents, 0.5.
    assert 0.3 < vectors.std() < 0.6
    if quantizer == "kmeans":  # of these very latents, and so close to them
        assert np.square(vectors - LATENTS).mean() < 0.2 * np.square(LATENTS).mean()


@pytest.mark.parametrize(("alone", "init"), [(False, None), (True, "zeros")])
def test_codebooks_start_at_zero(alone, init):
    model = RQ(I, D, alone, **SIZES, quantizer="kmeans", init_=init)
    values, _ = model.fit(jax.random.key(0), FEATURES)
    assert set(values) == {"frozen"}
    variables = model.init(jax.random.key(0), None)
    assert not variables["params"]["codebooks"].any()


def test_beside_a_table_the_first_forward_is_the_tables():
    make = resolve("rq(num_codebooks=2, codebook_size=6)", EMBEDDINGS, "embedding")
    model = ItemEmbedding(I, D, "frozen", make)
    variables = model.init(jax.random.key(0), None)
    np.testing.assert_array_equal(model.apply(variables), variables["frozen"]["full"])


@pytest.mark.parametrize("init", ["zeros", "pretrained"])
def test_a_spec_names_the_initial_codebooks_init(init):
    make = resolve(f"rq(init='{init}', quantizer='kmeans')", EMBEDDINGS, "embedding")
    made = make(num_items=I, features=D, alone=True)
    assert (made.init_, made.quantizer) == (init, "kmeans")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"init_": "pretrained"},
            "^init='pretrained' beside a full table would count the text twice: use "
            "init='zeros', or `full=none`$",
        ),
        (
            {"init_": "random"},
            "^rq: init='random' is not known: use one of None, 'zeros', 'pretrained'$",
        ),
        ({"quantizer": "pq"}, "quantizer='pq' is not known: use one of 'rqvae'"),
        ({"gradient": "gumbel"}, "gradient='gumbel' is not known"),
        ({"num_codebooks": 0}, "num_codebooks must be an integer of at least 1"),
        ({"codebook_size": "8"}, "codebook_size must be an integer"),
    ],
)
def test_refuses_what_cannot_be(settings, message):
    with pytest.raises(InputError, match=message):
        RQ(I, D, **settings)


def test_fit_refuses_a_small_catalogue_and_missing_text():
    with pytest.raises(InputError, match="codebook_size=256 is larger than the cat"):
        RQ(I, D).fit(jax.random.key(0), FEATURES)
    with pytest.raises(
        InputError, match="from item text, and .*`text_embeddings=FILE.npz`"
    ):
        RQ(I, D, **SIZES).fit(jax.random.key(0), ItemFeatures(None, LATENTS))
