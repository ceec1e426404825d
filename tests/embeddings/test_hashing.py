"""Hash embeddings against NumPy, and hash functions against Python's integers."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fedpeft_jax.core.errors import InputError
from fedpeft_jax.embeddings import Hash, ItemEmbedding, ItemFeatures
from fedpeft_jax.embeddings.hashing import universal_hash

I, D = 30, 4  # noqa: E741 (the shape letters of the library)
IDS = jnp.array([[4, 0, 4], [29, 1, 2]])
PRIME = 2**31 - 1


def draws(key, num_hashes):
    """The functions' coefficients as Python integers."""
    key_a, key_b = jax.random.split(key)
    a = jax.random.randint(key_a, (1, num_hashes), 1, PRIME)
    b = jax.random.randint(key_b, (1, num_hashes), 0, PRIME)
    return [int(x) for x in a[0]], [int(x) for x in b[0]]


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("num_buckets", [1, 7, 512])
def test_hashes_are_exact_modular_arithmetic(seed, num_buckets):
    buckets = universal_hash(jax.random.key(seed), 100_000, num_buckets, 3)
    functions = zip(*draws(jax.random.key(seed), 3), strict=True)
    for function, (a, b) in enumerate(functions):
        for x in (0, 1, 2, 4095, 4096, 65535, 65536, 99_999):
            expected = (a * x + b) % PRIME % num_buckets
            assert int(buckets[x, function]) == expected


def test_functions_collide_independently():
    """Distinct tuples are as many as for random ones; one shared modulus gives 512."""
    num_items, num_buckets = 3706, 512
    pairs = num_items * (num_items - 1) / 2
    together, distinct = [], []
    for seed in range(10):
        buckets = np.asarray(
            universal_hash(jax.random.key(seed), num_items, num_buckets, 2)
        )
        counts = np.bincount(buckets[:, 0], minlength=num_buckets)
        together.append((counts * (counts - 1) / 2).sum() / pairs)
        distinct.append(len(np.unique(buckets, axis=0)))
    # Universality: at most 1 / d_H of the pairs fall together (a little sampling room).
    assert np.mean(together) < 1.1 / num_buckets
    # Random tuples: I - pairs / d_H^2 = 3680 of them are distinct.
    assert min(distinct) > 3600


def test_every_seed_draws_its_own():
    first, second = (universal_hash(jax.random.key(s), 100, 50, 2) for s in (0, 1))
    assert (first != second).mean() > 0.9
    assert (first[:, 0] != first[:, 1]).mean() > 0.9


def filled(model, seed=0):
    """Variables whose parameters are random, as float64 for the oracle too."""
    variables = model.init(jax.random.key(seed), None)
    rng = np.random.default_rng(seed)
    params = jax.tree.map(
        lambda x: jnp.asarray(rng.normal(size=x.shape), x.dtype), variables["params"]
    )
    variables = {**variables, "params": params}
    return variables, jax.tree.map(lambda x: np.asarray(x, np.float64), variables)


@pytest.mark.parametrize("num_hashes", [1, 2, 3])
def test_mean_pooling_in_numpy(num_hashes):
    model = Hash(I, D, num_buckets=5, num_hashes=num_hashes)
    variables, exact = filled(model)
    table, buckets = (
        exact["params"]["table"],
        np.asarray(variables["frozen"]["buckets"]),
    )
    expected = np.zeros((I, D))
    for item, function in itertools.product(range(I), range(num_hashes)):
        expected[item] += table[buckets[item, function]] / num_hashes
    np.testing.assert_allclose(model.apply(variables), expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(
        model.apply(variables, IDS), expected[np.asarray(IDS)], rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize(("num_hashes", "reduction", "hidden"), [(2, 2, 1), (4, 2, 2)])
def test_senet_pooling_in_numpy(num_hashes, reduction, hidden):
    model = Hash(
        I, D, num_buckets=5, num_hashes=num_hashes, pooling="senet", reduction=reduction
    )
    variables, exact = filled(model, seed=1)
    params, buckets = exact["params"], np.asarray(variables["frozen"]["buckets"])
    w1, w2 = params["squeeze"]["kernel"], params["excite"]["kernel"]
    assert w1.shape == (num_hashes, hidden) and w2.shape == (hidden, num_hashes)
    expected = np.zeros((I, D))
    for item in range(I):
        vectors = params["table"][buckets[item]]  # [h, D]
        squeezed = vectors.mean(axis=1)
        weights = 1 / (1 + np.exp(-np.maximum(squeezed @ w1, 0) @ w2))
        expected[item] = weights @ vectors
    np.testing.assert_allclose(model.apply(variables), expected, rtol=1e-5, atol=1e-6)
    vector = np.array([1.0, -2.0, 0.5, 0.25], np.float32)
    inner = model.apply(variables, None, vector, method="inner")
    np.testing.assert_allclose(inner, expected @ vector, rtol=1e-4, atol=1e-5)
    weights = np.array([0.5, -1.0], np.float32)
    total = model.apply(variables, jnp.array([3, 9]), weights, method="weighted_sum")
    np.testing.assert_allclose(total, weights @ expected[[3, 9]], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("pooling", ["mean", "senet"])
def test_starts_at_zero_beside_a_table_and_random_alone(pooling):
    def make(**kwargs):
        return Hash(pooling=pooling, num_buckets=300, init_scale=0.2, **kwargs)

    beside = ItemEmbedding(I, D, "frozen", make)
    variables = beside.init(jax.random.key(0), None)
    table = variables["frozen"]["full"]
    np.testing.assert_array_equal(beside.apply(variables), table)
    alone = ItemEmbedding(I, D, None, make).init(jax.random.key(0), None)
    spread = alone["params"]["compressed"]["table"].std()
    assert float(spread) == pytest.approx(0.2, rel=0.1)


def test_buckets_take_the_fewest_bytes_that_hold_them():
    for num_buckets, dtype in [(2, "uint8"), (256, "uint8"), (257, "uint16")]:
        variables = Hash(I, D, num_buckets=num_buckets).init(jax.random.key(0), None)
        assert variables["frozen"]["buckets"].dtype == dtype


def test_fit_reports_the_codes_it_draws():
    model = Hash(I, D, num_buckets=3)
    values, figures = model.fit(jax.random.key(5), ItemFeatures())
    codes = [tuple(row) for row in np.asarray(values["frozen"]["buckets"])]
    assert figures["distinct_codes"] == len(set(codes))
    alike = sum(codes.count(code) > 1 for code in codes)
    assert figures["collision_rate"] == pytest.approx(alike / I)
    assert 0 < alike <= I


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_buckets": 0}, "num_buckets must be an integer of at least 1 .* got 0"),
        ({"num_hashes": 1.5}, "num_hashes must be an integer"),
        ({"reduction": 0}, "reduction must be"),
        ({"pooling": "max"}, "pooling='max' is not known: use 'mean' or 'senet'"),
    ],
)
def test_refuses_what_cannot_be(settings, message):
    with pytest.raises(InputError, match=message):
        Hash(I, D, **settings)
