"""int8 and int4: bytes, bounds, expectation, and a NumPy oracle of the rounding."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fedpeft_jax.core.errors import InputError
from fedpeft_jax.core.roles import ROWS, SHARED, num_bytes
from fedpeft_jax.federated import DOWNLOADS, UPLOADS, ClientUpdate, chain_uploads
from fedpeft_jax.federated.pipelines.levels import BLOCKS, dequantize, quantize
from tests.helpers import assert_same

pytestmark = pytest.mark.usefixtures("quick_compilation")

BITS = (8, 4)
MOST = {8: 127, 4: 7}
RNG = np.random.default_rng(0)
X = jnp.asarray(RNG.normal(size=(6, 5)) * 10.0 ** np.arange(-2, 3), jnp.float32)
AXES = {"column": (0,), "row": (1,), "tensor": (0, 1)}


def new_key():
    """The key of every test, which may be used once."""
    return jax.random.key(3)


def update_of(shared, rows=None, ids=()):
    ids = jnp.asarray(ids, jnp.int32)
    return ClientUpdate(shared, rows or {}, ids, jnp.float32(1), jnp.float32(0))


def send(stage, update):
    payload, _, _ = stage.encode(update, stage.init({}), new_key())
    return stage.decode(payload), payload


def hashed(key, index):
    """Uniform numbers in [0, 1): the published constants of lowbias32, in NumPy."""
    word = np.uint64(np.asarray(jax.random.bits(key, (), jnp.uint32)))
    h, low = (np.asarray(index, np.uint64) + word), np.uint64(2**32 - 1)
    h &= low
    for shift, factor in ((16, 0x7FEB352D), (15, 0x846CA68B)):
        h = ((h ^ (h >> np.uint64(shift))) * np.uint64(factor)) & low
    h ^= h >> np.uint64(16)
    return (h >> np.uint64(8)) / 2**24


@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize("bits", BITS)
def test_levels_and_scales_are_those_of_numpy(bits, block):
    ids = np.array([7, 2, 9, 0, 4, 11])
    found = quantize(X, new_key(), bits=bits, block=block, item_ids=jnp.asarray(ids))
    x = np.asarray(X)
    scale = np.max(np.abs(x), AXES[block], keepdims=True) * np.float32(1 / MOST[bits])
    np.testing.assert_array_equal(found.scale, scale)
    steps = x * (1 / scale)
    up = hashed(new_key(), ids[:, None] * 5 + np.arange(5)) < steps - np.floor(steps)
    levels = np.clip(np.floor(steps) + up, -MOST[bits], MOST[bits])
    np.testing.assert_allclose(dequantize(found), levels * scale, rtol=1e-6)
    if bits == 8:
        np.testing.assert_array_equal(found.levels, levels)
    else:  # the first three columns are in the low bits, the others above them
        codes = levels.astype(int) + 8
        high = np.concatenate([codes[:, 3:], np.full((6, 1), 8)], axis=1)
        np.testing.assert_array_equal(found.levels, codes[:, :3] + 16 * high)


@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize("bits", BITS)
def test_the_error_is_within_a_level_and_zero_in_expectation(bits, block):
    draws = 2000
    keys = jax.random.split(new_key(), draws)
    scale = np.asarray(quantize(X, new_key(), bits=bits, block=block).scale)
    decoded = jax.jit(
        jax.vmap(lambda k: dequantize(quantize(X, k, bits=bits, block=block)))
    )(keys)
    error = np.asarray(decoded, np.float64) - np.asarray(X)
    assert np.all(np.abs(error) <= scale * (1 + 1e-5))
    assert np.abs(error).max() > 0.3 * scale.max()  # it is rounding, and it is random
    # A number between two levels has a standard deviation of half their distance at
    # most. The largest of 30 means stays below 5 standard errors.
    assert np.all(np.abs(error.mean(0)) <= 5 * 0.5 * scale / np.sqrt(draws))


@pytest.mark.parametrize("bits", BITS)
def test_draws_of_neighbours_rows_and_clients_are_not_correlated(bits):
    """Half a level everywhere: the rounding alone decides."""
    ids = jnp.arange(200, dtype=jnp.int32)
    x = jnp.full((200, 8), 0.5).at[0].set(MOST[bits])
    one, two = (
        np.asarray(
            dequantize(quantize(x, key, bits=bits, block="tensor", item_ids=ids))
        )[1:]
        for key in jax.random.split(new_key())
    )
    assert set(np.unique(one)) == {0.0, 1.0}
    assert abs(one.mean() - 0.5) < 0.05
    pairs = {
        "columns": (one[:, 1:], one[:, :-1]),
        "rows": (one[1:], one[:-1]),
        "clients": (one, two),
    }
    for name, (a, b) in pairs.items():
        assert abs(np.corrcoef(a.ravel(), b.ravel())[0, 1]) < 0.1, name


@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize("bits", BITS)
def test_zeros_stay_zeros_and_padding_changes_no_scale(bits, block):
    rows = jnp.concatenate([X, jnp.zeros((3, 5))])
    ids = jnp.asarray([7, 2, 9, 0, 4, 11, 12, 12, 12], jnp.int32)
    padded = quantize(rows, new_key(), bits=bits, block=block, item_ids=ids)
    alone = quantize(X, new_key(), bits=bits, block=block, item_ids=ids[:6])
    assert not np.any(dequantize(padded)[6:])
    np.testing.assert_array_equal(padded.levels[:6], alone.levels)
    nothing = quantize(jnp.zeros((4, 3)), new_key(), bits=bits, block=block)
    assert not np.any(dequantize(nothing))
    assert np.all(np.isfinite(nothing.scale))
    tiny = jnp.full((2, 2), 1e-42)  # below what the processor divides by
    assert np.all(
        np.abs(dequantize(quantize(tiny, new_key(), bits=bits, block=block))) < 1e-40
    )


@pytest.mark.parametrize("bits", BITS)
def test_a_row_is_encoded_in_the_same_way_at_every_position(bits):
    stage = UPLOADS[f"int{bits}"]()
    order = jnp.array([4, 1, 0, 3, 5, 2])
    ids = jnp.array([7, 2, 9, 0, 4, 11])
    plain = send(stage, update_of({}, {"t": X}, ids))[0].rows["t"]
    mixed = send(stage, update_of({}, {"t": X[order]}, ids[order]))[0].rows["t"]
    np.testing.assert_array_equal(plain[order], mixed)
    dense = jnp.zeros((12, 5)).at[ids].set(X)
    found = send(stage, update_of({}, {"t": dense}, range(12)))[0].rows["t"]
    np.testing.assert_array_equal(found[ids], plain)


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_not_finite_stays_so(bits, bad):
    """Otherwise no latch would notice a client that diverged."""
    decoded = dequantize(
        quantize(X.at[2, 3].set(bad), new_key(), bits=bits, block="column")
    )
    assert not np.any(np.isfinite(decoded[:, 3]))
    assert np.all(np.isfinite(decoded[:, :3]))


@pytest.mark.parametrize(
    ("name", "block", "expected"),
    [
        # Numbers of 5 + 6 x 4 + 1, and rows of 3; then the scales.
        ("int8", "column", (30 + 4 * (1 + 4 + 1), 30 + 4 * 3)),
        ("int8", "row", (30 + 4 * (1 + 6 + 1), 30 + 4 * 10)),
        ("int8", "tensor", (30 + 4 * 3, 30 + 4)),
        ("int4", "column", (3 + 12 + 1 + 4 * (1 + 4 + 1), 20 + 4 * 3)),
        ("int4", "row", (3 + 12 + 1 + 4 * (1 + 6 + 1), 20 + 4 * 10)),
        ("int4", "tensor", (3 + 12 + 1 + 4 * 3, 20 + 4)),
    ],
)
def test_bytes_in_closed_form(name, block, expected):
    shared = {"b": jnp.ones(5), "w": jnp.ones((6, 4)), "s": jnp.float32(2)}
    rows = {"t": jnp.ones((10, 3))}
    decoded, payload = send(
        UPLOADS[name](block=block), update_of(shared, rows, range(10))
    )
    assert (num_bytes(payload.shared), num_bytes(payload.rows)) == expected
    assert_same(decoded.shared, shared)  # the largest of a block is exact
    server = {SHARED: shared, ROWS: rows}
    down = DOWNLOADS[name](block=block)
    sent = down.encode(server, new_key())
    assert num_bytes(sent) == sum(expected)
    assert_same(down.decode(sent), server)


@pytest.mark.parametrize("bits", BITS)
def test_one_number_per_item(bits):
    """A table [I] has one scale for all items, and a byte for each of them."""
    x = jnp.arange(1.0, 6.0)
    ids = jnp.arange(5)
    found = quantize(x, new_key(), bits=bits, block="row", item_ids=ids)
    assert found.levels.shape == (5, 1) and found.scale.shape == (1, 1)
    assert dequantize(found).shape == (5,)
    cube = jnp.ones((4, 2, 3))
    found = quantize(cube, new_key(), bits=bits, block="row", item_ids=ids[:4])
    assert found.scale.shape == (4, 1, 1)
    np.testing.assert_array_equal(dequantize(found), cube)


def test_integers_and_empty_trees_are_left_alone():
    update = update_of({"n": jnp.arange(3)}, {}, [])
    decoded, payload = send(UPLOADS["int8"](), update)
    assert_same(decoded, update)
    assert_same(payload.shared, update.shared)


def test_another_block_is_an_error_of_one_line():
    for make in (UPLOADS["int8"], UPLOADS["int4"], DOWNLOADS["int8"]):
        with pytest.raises(InputError, match="block must be one of column, row, ten"):
            make(block="items")


# Which stage may follow which

ORDERS = {
    "clip after int8": (["int8", "clip_by_norm"], "clip_by_norm cannot follow int8"),
    "clip after bfloat16": (["bfloat16", "clip_by_norm"], "cannot follow a stage that"),
    "clip after rows": (["rows", "clip_by_norm"], "cannot follow rows"),
    "top_k after int4": (["int4", "top_k"], "top_k cannot follow int8 or int4"),
    "top_k after rows": (["rows", "top_k"], "top_k cannot follow rows"),
    "top_k twice": (["top_k", "top_k"], "top_k cannot follow top_k"),
    "rows after top_k": (["top_k", "rows"], "rows cannot follow top_k"),
    "rows twice": (["rows", "rows"], "rows cannot follow rows"),
    "int8 twice": (["int8", "int8"], "int8 cannot follow int8 or int4"),
    "int8 after bfloat16": (["bfloat16", "int8"], "int8 cannot follow a stage that"),
    "bfloat16 after int4": (["int4", "bfloat16"], "bfloat16 cannot follow int8 or"),
    "int8 after top_k of int4": (["top_k", "int4", "int8"], "int8 cannot follow"),
    "int8 after rows of int4": (["rows", "int4", "int8"], "int8 cannot follow"),
}


def made(names):
    arguments = {"clip_by_norm": {"max_norm": 1.0}, "top_k": {"k": 3}}
    return chain_uploads(*(UPLOADS[n](**arguments.get(n, {})) for n in names))


@pytest.mark.parametrize("name", ORDERS)
def test_an_order_that_makes_no_sense_is_one_clear_error(name):
    names, message = ORDERS[name]
    update, stage = update_of({"w": X}, {"t": X}, range(6)), made(names)
    received = {SHARED: update.shared, ROWS: update.rows}
    with pytest.raises(InputError, match=message) as caught:
        stage.encode(update, stage.init(received), new_key())
    assert "\n" not in str(caught.value) and "leave one of them out" in str(
        caught.value
    )


@pytest.mark.parametrize("bits", BITS)
def test_levels_of_touched_rows_are_touched_rows_of_levels(bits):
    update = update_of({"w": X}, {"t": X}, [7, 2, 9, 0, 4, 11])
    first, last = (
        send(made(names), update)
        for names in ([f"int{bits}", "rows"], ["rows", f"int{bits}"])
    )
    assert num_bytes(first[1][:2]) == num_bytes(last[1][:2])
    for decoded, _ in (first, last):
        scale = np.abs(np.asarray(X)).max(0) / MOST[bits]
        assert np.all(np.abs(decoded.rows["t"] - X) <= scale * 1.0001)
