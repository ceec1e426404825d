"""What travels: every registered stage keeps its contract, alone and in a round."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fedpeft_jax.core.errors import InputError
from fedpeft_jax.core.roles import ROWS, SHARED, gather_rows, num_bytes
from fedpeft_jax.federated import (
    DOWNLOADS,
    UPLOADS,
    ClientUpdate,
    Upload,
    chain_downloads,
    chain_uploads,
)
from fedpeft_jax.federated.pipelines import identity_upload
from fedpeft_jax.federated.pipelines.checks import check_download, check_upload
from tests import toys
from tests.helpers import (
    assert_close,
    assert_same,
    random_split,
)

pytestmark = pytest.mark.usefixtures("quick_compilation")

NUM_ITEMS = 23
SPLIT = random_split([3, 1, 5, 2, 4, 3], NUM_ITEMS)
ARGUMENTS = {"clip_by_norm": {"max_norm": 0.3}}
LEVELS = {"int8": 1 / 127, "int4": 1 / 7}  # the distance of two, of the largest
STAGES = {
    name: make(**ARGUMENTS.get(name, {}))
    for name, make in {**UPLOADS, **toys.UPLOADS}.items()
}
RECEIVED = {SHARED: {"w": jnp.zeros((3, 2))}, ROWS: {"t": jnp.zeros((NUM_ITEMS, 2))}}


def make_update(ids, seed=0):
    """An update whose rows belong to some items; the others' are zero."""
    rng = np.random.default_rng(seed)
    table = np.zeros((NUM_ITEMS + 1, 2), np.float32)
    table[[1, 4, 7]] = rng.normal(size=(3, 2))
    return ClientUpdate(
        {"w": jnp.asarray(rng.normal(size=(3, 2)), jnp.float32)},
        {"t": jnp.asarray(table[np.asarray(ids)])},
        jnp.asarray(ids),
        jnp.float32(3),
        jnp.float32(0.5),
    )


def send(stage, update, seed=0):
    """The update that the server decodes, the payload, the state and the figures."""
    key = jax.random.key(seed)
    payload, state, figures = stage.encode(update, stage.init(RECEIVED), key)
    return stage.decode(payload), payload, state, figures


# Every upload stage


@pytest.mark.parametrize("name", STAGES)
def test_what_is_decoded_has_the_structure_of_the_update(name):
    update = make_update([1, 4, 7, NUM_ITEMS])
    decoded, payload, _, figures = send(STAGES[name], update)
    assert jax.tree.structure(decoded) == jax.tree.structure(update)
    for a, b in zip(jax.tree.leaves(decoded), jax.tree.leaves(update), strict=True):
        assert (a.shape, a.dtype) == (b.shape, b.dtype)
    assert isinstance(payload, ClientUpdate)
    for value in figures.values():
        assert (value.shape, value.dtype) == ((), jnp.float32)


@pytest.mark.parametrize("name", STAGES)
def test_an_update_of_zero_stays_zero(name):
    zero = jax.tree.map(jnp.zeros_like, make_update([1, 4]))
    decoded, _, state, figures = send(STAGES[name], zero)
    for leaf in jax.tree.leaves((decoded, state, figures)):
        assert not np.any(leaf)


@pytest.mark.parametrize("name", STAGES)
def test_gathered_rows_are_encoded_as_dense_ones(name):
    """The simulator gathers rows; on the wire they are dense."""
    gathered, dense = make_update([7, 1, 4, NUM_ITEMS]), make_update(range(NUM_ITEMS))
    one, two = (send(STAGES[name], update)[0] for update in (gathered, dense))
    assert_close(one.shared, two.shared)
    assert_close(
        jax.tree.map(lambda x: x[:3], one.rows),
        gather_rows(two.rows, jnp.array([7, 1, 4])),
    )


@pytest.mark.parametrize("name", STAGES)
def test_stages_run_under_jit_and_vmap(name):
    stage = STAGES[name]
    updates = [make_update([1, 4, 7], seed) for seed in range(3)]
    together = jax.tree.map(lambda *x: jnp.stack(x), *updates)
    states = jax.tree.map(lambda x: jnp.stack([x] * 3), stage.init(RECEIVED))
    keys = jax.random.split(jax.random.key(0), 3)

    @jax.jit
    @jax.vmap
    def encode(update, state, key):
        payload, state, figures = stage.encode(update, state, key)
        return stage.decode(payload), state, figures

    found = encode(together, states, keys)
    for place, update in enumerate(updates):
        key = jax.random.split(jax.random.key(0), 3)[place]
        payload, state, figures = stage.encode(update, stage.init(RECEIVED), key)
        alone = stage.decode(payload), state, figures
        assert_close(jax.tree.map(lambda x, p=place: x[p], found), alone)


@pytest.mark.parametrize("name", [n for n in STAGES if n != "clip_by_norm"])
def test_a_stage_that_encodes_keeps_nearly_all_of_the_update(name):
    update = make_update([1, 4, 7])
    decoded = send(STAGES[name], update)[0]
    largest = max(float(jnp.max(jnp.abs(x))) for x in jax.tree.leaves(update.shared))
    largest = max(largest, float(jnp.max(jnp.abs(update.rows["t"]))))
    assert_close(decoded, update, rtol=0.01, atol=LEVELS.get(name, 1e-3) * largest)


def test_the_toy_stage_is_one_short_function():
    import inspect

    assert len(inspect.getsource(toys.error_feedback).splitlines()) < 60


# Single stages by hand


def test_clipping_by_hand():
    update = make_update([1, 4, 7])
    leaves = jax.tree.leaves((update.shared, update.rows))
    norm = np.sqrt(sum(np.sum(np.square(np.asarray(x, float))) for x in leaves))
    for max_norm in (norm / 3, 3 * norm):
        stage = UPLOADS["clip_by_norm"](max_norm=float(max_norm))
        decoded, _, _, figures = send(stage, update)
        factor = min(1.0, max_norm / norm)
        for part in ("shared", "rows"):
            expected = jax.tree.map(lambda x, f=factor: x * f, getattr(update, part))
            assert_close(getattr(decoded, part), expected)
        assert figures["clipped"] == (max_norm < norm)
        assert (decoded.weight, decoded.loss) == (update.weight, update.loss)
    for bad in (0.0, -1.0, float("nan")):
        with pytest.raises(InputError, match="max_norm must be above 0"):
            UPLOADS["clip_by_norm"](max_norm=bad)


def test_bfloat16_is_rounding_to_eight_bits():
    update = make_update([1, 4, 7])
    decoded, payload, _, _ = send(STAGES["bfloat16"], update)
    sent = (payload.shared, payload.rows)
    assert num_bytes(sent) == num_bytes((update.shared, update.rows)) / 2
    before, after = (np.asarray(u.shared["w"]) for u in (update, decoded))
    bits = before.view(np.uint32).astype(np.uint64)
    even = (bits + 0x7FFF + ((bits >> 16) & 1)) & 0xFFFF0000  # ties to even
    np.testing.assert_array_equal(after.view(np.uint32), even)


# Chains


def test_a_chain_encodes_in_order_and_decodes_in_reverse():
    update = make_update([1, 4, 7])
    clip, narrow = STAGES["clip_by_norm"], STAGES["bfloat16"]
    decoded, payload, state, figures = send(chain_uploads(clip, narrow), update)
    by_hand = send(narrow, send(clip, update)[1])
    assert_same(decoded, by_hand[0])
    assert payload.shared["w"].dtype == jnp.bfloat16
    assert state == ((), ()) and set(figures) == {"clipped"}
    assert chain_uploads(clip) is clip


def test_the_stages_of_a_chain_have_keys_of_their_own():
    update = make_update([1, 4, 7])
    noise, plain = toys.uniform_noise(1.0), identity_upload()
    chains = chain_uploads(noise, plain), chain_uploads(plain, noise)
    one, other = (send(chain, update)[0].shared["w"] for chain in chains)
    assert abs(float((one - other)[0, 0])) > 1e-3


def test_two_figures_of_one_name_are_an_error():
    clip = STAGES["clip_by_norm"]
    with pytest.raises(ValueError, match="'clipped'"):
        send(chain_uploads(clip, clip), make_update([1]))


def test_downloads_chain_too():
    server = {SHARED: {"w": jnp.array([1.0 + 2**-12])}, ROWS: {}}
    narrow = DOWNLOADS["bfloat16"]()
    both = chain_downloads(DOWNLOADS["identity"](), narrow)
    key = jax.random.key(0)
    payload = both.encode(server, key)
    assert payload[SHARED]["w"].dtype == jnp.bfloat16
    assert both.decode(payload)[SHARED]["w"].tolist() == [1.0]
    assert chain_downloads(narrow) is narrow


# Stages that break their contract, which would otherwise be broadcast silently


BROKEN = {
    "decoded rows have another width": (
        Upload(
            lambda received: (),
            lambda update, state, key: (update, state, {}),
            lambda p: p._replace(rows=jax.tree.map(lambda x: x[..., :1], p.rows)),
        ),
        r"shapes and types of the update; .*t.* is float32\[23, 1\] in place of",
    ),
    "nothing is decoded": (
        STAGES["bfloat16"]._replace(decode=lambda payload: payload),
        "is bfloat16.* in place of float32",
    ),
    "a field is lost": (
        STAGES["identity"]._replace(decode=lambda p: p._replace(rows={})),
        "must have the structure of the update",
    ),
    "no figures": (
        STAGES["identity"]._replace(encode=lambda update, state, key: (update, state)),
        r"must return \(payload, state, figures\)",
    ),
    "another payload": (
        STAGES["identity"]._replace(encode=lambda update, s, key: ({}, s, {})),
        "payload must be a ClientUpdate, got dict",
    ),
    "a state that grows": (
        STAGES["identity"]._replace(encode=lambda u, s, key: (u, (s, s), {})),
        "state must have the structure of the one that `init` returns",
    ),
    "a figure that is no scalar": (
        STAGES["identity"]._replace(
            encode=lambda u, s, key: (u, s, {"x": jnp.zeros(3)})
        ),
        r"figure 'x' .* scalar float32, got float32\[3\]",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_stage_that_breaks_its_contract_is_one_clear_error(name):
    stage, message = BROKEN[name]
    with pytest.raises(InputError, match=message) as caught:
        check_upload(stage, RECEIVED, NUM_ITEMS)
    assert "\n" not in str(caught.value)


def test_a_download_that_does_not_decode_is_one_clear_error():
    broken = DOWNLOADS["bfloat16"]()._replace(decode=lambda payload: payload)
    with pytest.raises(InputError, match="is bfloat16.* in place of float32"):
        check_download(broken, RECEIVED)
