"""Secure sums: exact, recovered after dropouts, and nothing else readable."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from fedpeft_jax import InputError
from fedpeft_jax.federated.pipelines import int8_upload
from fedpeft_jax.federated.updates import ClientUpdate
from fedpeft_jax.privacy.fixed_point import (
    FixedPoint,
    check_range,
    finest_fixed_point,
    from_fixed,
    to_fixed,
)
from fedpeft_jax.privacy.masking import agree, public_key, unmask
from fedpeft_jax.privacy.secret_sharing import PRIME, recover_secrets, share_secrets
from fedpeft_jax.privacy.secure_sum import reveal, secure_sum

pytestmark = pytest.mark.usefixtures("quick_compilation")

FIXED = FixedPoint(bound=4.0, fraction_bits=20)
SHAPES = {"table": (3, 2), "vector": (5,), "scalar": (), "empty": (0, 2)}


def draw(num_clients, seed=0, scale=1.5):
    rng = np.random.default_rng(seed)
    return {
        name: rng.normal(0, scale, (num_clients, *shape)).astype(np.float32)
        for name, shape in SHAPES.items()
    }


def plain_levels(x, fixed_point):
    """Levels in int64, from float64."""
    levels = np.rint(np.float64(x) * 2.0**fixed_point.fraction_bits)
    return np.clip(levels, -fixed_point.limit, fixed_point.limit).astype(np.int64)


def plain_sum(updates, answered, fixed_point):
    """The plain sum of the levels, modulo 2^32."""
    return jax.tree.map(
        lambda x: plain_levels(x, fixed_point)[answered].sum(axis=0) % 2**32, updates
    )


def assert_same(found, expected):
    jax.tree.map(np.testing.assert_array_equal, found, expected)


def p_of_uniform_bytes(words):
    counts = np.bincount(np.asarray(words, np.uint32).view(np.uint8), minlength=256)
    return stats.chisquare(counts).pvalue


@st.composite
def rounds(draw):
    """Sizes, who answers, who is left to unmask, and a threshold that they reach."""
    num_clients = draw(st.integers(1, 8))
    threshold = draw(st.integers(1, num_clients))
    order = draw(st.permutations(range(num_clients)))
    num_answered = draw(st.integers(threshold, num_clients))
    num_left = draw(st.integers(threshold, num_answered))
    answered, left = np.zeros((2, num_clients), bool)
    answered[order[:num_answered]] = True
    left[order[:num_left]] = True
    return answered, left, threshold, draw(st.integers(0, 2**31 - 1))


@settings(deadline=None, max_examples=25, derandomize=True)
@given(rounds())
def test_the_sum_is_exact_whoever_drops_out(round_):
    answered, left, threshold, seed = round_
    updates = draw(len(answered), seed)
    found = secure_sum(
        updates,
        jax.random.key(seed),
        answered,
        FIXED,
        threshold=threshold,
        unmasking=left,
    )
    assert_same(found.levels, plain_sum(updates, answered, FIXED))
    assert found.levels["table"].dtype == np.uint32
    assert found.messages["table"].shape == (answered.sum(), 3, 2)
    # Of each client exactly one secret is recovered.
    assert sorted(found.self_secrets) == np.flatnonzero(answered).tolist()
    assert sorted(found.secret_keys) == np.flatnonzero(~answered).tolist()
    exact = {
        name: plain_levels(x, FIXED)[answered].sum(axis=0) / 2**20
        for name, x in updates.items()
    }
    assert_same(found.total, jax.tree.map(np.float32, exact))


@pytest.mark.parametrize("sign", [-1, 1])
def test_the_largest_sums_are_read_correctly(sign):
    fixed = finest_fixed_point(bound=1.0, num_clients=5)
    updates = {name: np.full_like(x, 3.0 * sign) for name, x in draw(5).items()}
    answered = np.ones(5, bool)
    found = secure_sum(updates, jax.random.key(0), answered, fixed)
    # 2^28 is the finest power of two of which five fit below 2^31.
    assert fixed.fraction_bits == 28
    assert_same(found.levels["scalar"], np.uint32((5 * 2**28 * sign) % 2**32))
    np.testing.assert_array_equal(found.total["vector"], 5.0 * sign)
    assert found.num_clipped == 5 * (6 + 5 + 1)


def test_only_the_clipped_numbers_of_senders_are_counted():
    updates = {"w": np.array([[5.0, 1.0], [-9.0, np.nan], [0.0, -np.inf]], np.float32)}
    answered = np.array([False, True, True])
    found = secure_sum(updates, jax.random.key(0), answered, FIXED, threshold=2)
    assert found.num_clipped == 3
    assert found.total["w"].tolist() == [-4.0, -4.0]


SENT = np.repeat(np.float32([0.0, 4.0]), 5000)


@pytest.fixture(scope="module")
def four_clients():
    updates = {"w": np.stack([SENT] * 4)}
    key = jax.random.key(3)
    return secure_sum(updates, key, np.ones(4, bool), FIXED, threshold=3)


def test_a_message_is_uniform_and_independent_of_the_update(four_clients):
    levels = plain_levels(SENT, FIXED).astype(np.uint32)
    assert p_of_uniform_bytes(levels) < 1e-10  # the test can fail
    for message in four_clients.messages["w"]:
        assert p_of_uniform_bytes(message) > 1e-4
        table = np.zeros((2, 16))
        np.add.at(table, ((SENT > 0).astype(int), message >> 28), 1)
        assert stats.chi2_contingency(table).pvalue > 1e-4


def test_a_sum_of_some_messages_is_still_masked(four_clients):
    """Even without their self masks, which the server removes from the sum of all."""
    levels = plain_levels(SENT, FIXED)
    public = []  # no client has vanished
    for size in (1, 2, 3, 4):
        for chosen in itertools.combinations(range(4), size):
            total = four_clients.messages["w"][list(chosen)].sum(0, dtype=np.uint32)
            secrets = {i: four_clients.self_secrets[i] for i in chosen}
            rest = unmask(total, secrets, {}, public)
            if size == 4:
                np.testing.assert_array_equal(rest, 4 * levels)
            else:
                assert p_of_uniform_bytes(rest) > 1e-4


def test_a_late_message_stays_masked(four_clients):
    """The server knows the late client's key, and every pairwise mask with it."""
    updates = {"w": np.stack([SENT] * 4)}
    answered = np.array([True, True, True, False])
    key = jax.random.key(3)
    found = secure_sum(updates, key, answered, FIXED, threshold=3)
    messages = four_clients.messages["w"]  # the same key: the same messages
    np.testing.assert_array_equal(found.messages["w"], messages[:3])
    both = unmask(messages.sum(0, dtype=np.uint32), found.self_secrets, {}, [])
    assert p_of_uniform_bytes(both - found.levels["w"]) > 1e-4
    alone = unmask(both, {3: four_clients.self_secrets[3]}, {}, [])
    np.testing.assert_array_equal(alone, 4 * plain_levels(SENT, FIXED))


def test_wrong_secrets_do_not_unmask(four_clients):
    total = four_clients.messages["w"].sum(0, dtype=np.uint32)
    secrets = four_clients.self_secrets | {2: four_clients.self_secrets[2] + 1}
    assert p_of_uniform_bytes(unmask(total, secrets, {}, [])) > 1e-4


def test_secrets_differ_by_client_and_key():
    updates = {"w": np.zeros((3, 4), np.float32)}
    answered = np.ones(3, bool)
    one, two = (
        secure_sum(updates, jax.random.key(seed), answered, FIXED) for seed in (0, 1)
    )
    secrets = {*one.self_secrets.values(), *two.self_secrets.values()}
    assert len(secrets) == 6
    rows = np.concatenate([one.messages["w"], two.messages["w"]])
    assert len(np.unique(rows)) == rows.size


def test_too_few_survivors():
    updates = draw(5)
    answered = np.array([True, True, True, False, False])
    with pytest.raises(InputError, match="3 clients are left .* threshold=4: repeat"):
        secure_sum(updates, jax.random.key(0), answered, FIXED)
    left = np.array([True, True, False, False, False])
    with pytest.raises(InputError, match="2 clients are left .* threshold=3"):
        secure_sum(
            updates, jax.random.key(0), answered, FIXED, threshold=3, unmasking=left
        )


def test_clients_refuse_to_reveal_both_secrets():
    shares = np.arange(6).astype(object).reshape(2, 3)
    with pytest.raises(
        InputError, match="client 2 is listed as answering and as missing"
    ):
        reveal(shares, senders=np.array([0, 2]), missing=np.array([1, 2]))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"threshold": 0}, "threshold must be an integer of at least 1"),
        ({"threshold": 4}, "at most 3, got 4"),
        ({"answered": np.ones(3)}, "answered must be bool"),
        ({"unmasking": np.ones(3, bool)}, "only clients that answered"),
        ({"fixed_point": FixedPoint(4.0, 28)}, "can exceed 2.31 - 1"),
        ({"updates": {"ids": np.ones((3, 2), np.int32)}}, r"\['ids'\] is int32"),
        ({"updates": {"w": np.ones((2, 2), np.float32)}}, r"shape \(2, 2\)"),
        ({"updates": {}}, "no array"),
    ],
)
def test_wrong_arguments(change, message):
    arguments = {
        "updates": {"w": np.zeros((3, 2), np.float32)},
        "answered": np.array([True, True, False]),
        "fixed_point": FIXED,
        "threshold": 2,
    } | change
    with pytest.raises(InputError, match=message):
        secure_sum(key=jax.random.key(0), **arguments)


def test_shamir_of_a_published_example():
    """Secret 1234 with coefficients 166 and 94, of Wikipedia's article on Shamir."""
    shares = share_secrets(np.array([[1234, 166, 94]], object), num_holders=6)
    assert shares.tolist() == [[1494, 1942, 2578, 3402, 4414, 5614]]
    for holders in itertools.combinations(range(6), 3):
        assert recover_secrets(shares[:, holders], list(holders)).tolist() == [1234]
    assert recover_secrets(shares[:, :2], [0, 1]).tolist() != [1234]


@pytest.mark.parametrize("claimed", [0, 1234, 2**100, PRIME - 1])
def test_two_of_three_shares_fit_every_secret(claimed):
    shares = share_secrets(np.array([[987654321, 2**126 + 5, 3**70]], object), 5)[0]
    # Holders 1 and 3 have the points 2 and 4: solve for the two other coefficients.
    at_2, at_4 = ((int(shares[h]) - claimed) % PRIME for h in (1, 3))
    square = (at_4 - 2 * at_2) * pow(8, -1, PRIME) % PRIME
    linear = (at_2 - 4 * square) * pow(2, -1, PRIME) % PRIME
    other = share_secrets(np.array([[claimed, linear, square]], object), 5)[0]
    assert (other[1], other[3]) == (shares[1], shares[3])


def test_wrong_shares():
    with pytest.raises(InputError, match="threshold of 3"):
        share_secrets(np.ones((1, 3), object), num_holders=2)
    with pytest.raises(InputError, match="distinct"):
        recover_secrets(np.ones((1, 2), object), holders=[1, 1])


def test_every_pair_agrees_on_a_number_of_its_own():
    keys = [2**100 + 7 * i for i in range(12)]
    public = [public_key(x) for x in keys]
    pairs = list(itertools.combinations(range(12), 2))
    agreed = [agree(keys[i], public[j]) for i, j in pairs]
    assert agreed == [agree(keys[j], public[i]) for i, j in pairs]
    assert len(set(agreed)) == len(pairs)


def test_masks_of_different_secrets_differ():
    zeros = np.zeros(4, np.uint32)
    masks = {unmask(zeros, {0: x}, {}, []).tobytes() for x in range(500)}
    assert len(masks) == 500


@pytest.mark.parametrize("bits", [-3, 0, 7, 23])
def test_levels_are_those_of_float64(bits):
    fixed = FixedPoint(bound=100.0, fraction_bits=bits)
    rng = np.random.default_rng(bits + 3)
    x = rng.normal(0, 60, 4000).astype(np.float32)
    x[:4] = 0.5, 1.5, -0.5, -2.5  # half to even
    levels, num_clipped = to_fixed(x, fixed)
    expected = plain_levels(x, fixed)
    np.testing.assert_array_equal(np.asarray(levels).view(np.int32), expected)
    unclipped = np.rint(np.float64(x) * 2.0**bits)
    assert int(num_clipped) == np.sum(unclipped != expected) > 0
    back = from_fixed(levels, fixed)
    inside = np.abs(unclipped) <= fixed.limit
    error = np.abs(np.float64(back) - x)[inside]
    assert error.max() <= 2.0 ** (-bits - 1) + 100 * 2.0**-24


def test_stochastic_rounding_has_the_exact_expectation():
    fixed = FixedPoint(bound=8.0, fraction_bits=0)
    x = np.repeat(np.float32([0.2, -1.7, 3.0]), 20000)
    levels, _ = to_fixed(x, fixed, jax.random.key(1))
    found = np.asarray(levels).view(np.int32).reshape(3, -1)
    assert [set(row.tolist()) for row in found] == [{0, 1}, {-2, -1}, {3}]
    # Standard errors are below 0.0033.
    np.testing.assert_allclose(found.mean(axis=1), [0.2, -1.7, 3.0], atol=0.015)


def test_stochastic_rounding_is_drawn_for_each_client():
    updates = {"w": np.full((3, 50), 0.5, np.float32)}
    fixed = FixedPoint(bound=8.0, fraction_bits=0)
    key, answered = jax.random.key(0), np.ones(3, bool)
    found = secure_sum(updates, key, answered, fixed, stochastic=True)
    assert set(found.total["w"].tolist()) == {0.0, 1.0, 2.0, 3.0}


@pytest.mark.parametrize("bound", [1e-9, 0.3, 1.0, 77.7, 1e6])
@pytest.mark.parametrize("num_clients", [1, 604, 100_000])
def test_the_finest_format_fits_and_the_next_does_not(bound, num_clients):
    fixed = finest_fixed_point(bound, num_clients)
    if num_clients * bound > 1e10:
        assert fixed.fraction_bits < 0
    check_range(fixed, num_clients)
    with pytest.raises(InputError, match=f"at most {fixed.fraction_bits}, or lower"):
        check_range(fixed._replace(fraction_bits=fixed.fraction_bits + 1), num_clients)


@pytest.mark.parametrize(
    ("bound", "bits", "num_clients", "message"),
    [
        (0.0, 8, 2, "bound must be above 0"),
        (float("inf"), 8, 2, "bound must be"),
        (0.1, 2, 2, "represent nothing but zero"),
        (1.0, 99, 2, "fraction_bits must be an integer"),
        (1.0, 8, 0, "num_clients must be an integer of at least 1"),
        (1e30, 0, 2**20, "no fixed-point format holds sums"),
    ],
)
def test_wrong_formats(bound, bits, num_clients, message):
    with pytest.raises(InputError, match=message):
        check_range(FixedPoint(bound, bits), num_clients)


def test_int8_uploads_with_local_noise():
    """Rows and parameters that a client sent in 8 bits, noised before it sent them."""
    num_clients, sigma = 5, 0.3
    rng = np.random.default_rng(7)
    ids = jnp.arange(4, dtype=jnp.int32)

    def normal(*shape):
        clean = rng.uniform(-1, 1, (num_clients, *shape))
        return jnp.asarray(clean + rng.normal(0, sigma, clean.shape), jnp.float32)

    sent = ClientUpdate(
        {"B": normal(6, 2)},
        {"A": normal(4, 2)},
        jnp.broadcast_to(ids, (num_clients, 4)),
        jnp.ones(num_clients),
        normal(),
    )
    upload = int8_upload()
    keys = jax.random.split(jax.random.key(0), num_clients)

    @jax.jit
    @jax.vmap
    def send(update, key):
        return upload.decode(upload.encode(update, (), key)[0])

    decoded = send(sent, keys)._replace(item_ids=None)
    fixed = finest_fixed_point(bound=1 + 6 * sigma, num_clients=num_clients)
    answered = np.array([True, False, True, True, True])
    found = secure_sum(decoded, jax.random.key(1), answered, fixed)
    assert found.num_clipped == 0
    assert_same(found.levels, plain_sum(decoded, answered, fixed))

    def close(total, x):
        expected = np.float64(x)[answered].sum(axis=0)
        most = num_clients * 2.0 ** -(fixed.fraction_bits + 1) + 2.0**-23
        np.testing.assert_allclose(total, expected, rtol=2**-23, atol=most)

    jax.tree.map(close, found.total, decoded)
    assert float(found.total.weight) == 4.0
