"""What travels: every registered stage keeps its contract, alone and in a round."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from fedpeft_jax.core.errors import InputError
from fedpeft_jax.core.keys import ClientPurpose, client_key, purpose_key
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
    Engine,
    assert_close,
    assert_same,
    copy,
    largest_change,
    make_model,
    make_training,
    random_split,
)

pytestmark = pytest.mark.usefixtures("quick_compilation")

NUM_ITEMS = 23
SPLIT = random_split([3, 1, 5, 2, 4, 3], NUM_ITEMS)
ARGUMENTS = {"clip_by_norm": {"max_norm": 0.3}}
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
    assert_close(decoded, update, rtol=0.01, atol=1e-3)


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


def noisy(scale):
    """A stage that adds uniform noise; its key decides what."""

    def encode(update, state, key):
        add = lambda x: x + scale * jax.random.uniform(key)  # noqa: E731
        return update._replace(shared=jax.tree.map(add, update.shared)), state, {}

    return Upload(lambda received: (), encode, lambda payload: payload)


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
    one = send(chain_uploads(noisy(1.0), identity_upload()), update)[0].shared["w"]
    other = send(chain_uploads(identity_upload(), noisy(1.0)), update)[0].shared["w"]
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


# In a round


def engine(**pipelines):
    model = make_model(NUM_ITEMS, "frozen", "lora(rank=2)")
    return Engine(SPLIT, make_training(model), cohort_size=3, pipelines=pipelines)


@pytest.fixture(scope="module")
def plain():
    built = engine()
    return built, built.start()


def test_identity_stages_change_no_bit(plain):
    built, (state, frozen) = plain
    other = engine(
        upload=chain_uploads(UPLOADS["identity"](), UPLOADS["identity"]()),
        download=DOWNLOADS["identity"](),
    )
    expected, report = built.rounds(state, frozen, 2)
    actual, same = other.rounds(other.start()[0], frozen, 2)
    assert_same(actual._replace(upload=()), expected._replace(upload=()))
    assert_same(same, report)
    assert report.figures == {}


def test_clipping_bounds_the_step_and_reports_its_share(plain):
    _, (state, frozen) = plain
    clipped = engine(upload=UPLOADS["clip_by_norm"](max_norm=0.01))
    after, report = clipped.rounds(state, frozen)
    change = jax.tree.map(
        jnp.subtract, (after.shared, after.rows), (state.shared, state.rows)
    )
    # A mean of updates of that length is no longer.
    assert 0.001 < float(optax.tree.norm(change)) <= 0.0101
    assert report.figures["clipped"].tolist() == [1.0, 0.0, 0.0]
    loose = engine(upload=UPLOADS["clip_by_norm"](max_norm=1e6))
    after, report = loose.rounds(state, frozen)
    assert_close(after, plain[0].rounds(state, frozen)[0])
    assert report.figures["clipped"][0] == 0


def test_a_client_keeps_its_memory_beside_its_private_parameters(plain):
    _, (_, frozen) = plain
    feedback = engine(upload=toys.error_feedback())
    state, _ = feedback.start()
    assert {len(x) for x in jax.tree.leaves(state.upload)} == {SPLIT.num_clients}
    after, report = feedback.rounds(state, frozen)
    cohort = np.sort(feedback.plan(0).client_ids[0])
    (memory,) = jax.tree.leaves(after.upload)
    moved = np.flatnonzero(np.any(np.asarray(memory) != 0, axis=(1, 2)))
    np.testing.assert_array_equal(moved, cohort)
    mean_error = np.abs(np.asarray(memory)[cohort]).sum() / len(cohort)
    np.testing.assert_allclose(report.figures["kept_back"][0], mean_error, rtol=1e-5)


def test_every_client_encodes_with_a_key_of_its_own(plain):
    built, (state, frozen) = plain
    seen = engine(upload=noisy(1.0))
    after, _ = seen.rounds(state, frozen)
    expected, _ = built.rounds(state, frozen)
    added = jax.tree.leaves(after.shared)[0] - jax.tree.leaves(expected.shared)[0]
    ids = seen.plan(0).client_ids[0]
    draws = [
        float(
            jax.random.uniform(
                purpose_key(client_key(state.key, 0, int(i)), ClientPurpose.UPLOAD)
            )
        )
        for i in ids
    ]
    weights = SPLIT.counts[ids]
    np.testing.assert_allclose(added, np.average(draws, weights=weights), rtol=1e-4)


def test_clients_train_from_what_they_receive_and_the_server_keeps_its_own(plain):
    """Without a step nothing moves, although the clients received rounded values."""
    _, (state, frozen) = plain
    model = make_model(NUM_ITEMS, "frozen", "lora(rank=2)")
    rounded = Engine(
        SPLIT,
        make_training(model, optimizer=optax.sgd(0.0)),
        cohort_size=3,
        pipelines={"download": DOWNLOADS["bfloat16"]()},
    )
    start = state._replace(
        shared=jax.tree.map(lambda x: x + 0.3, state.shared),
        rows=jax.tree.map(lambda x: x + 0.3, state.rows),
    )
    after, report = rounded.rounds(start, frozen)
    assert_same((after.shared, after.rows), (start.shared, start.rows))
    narrow = DOWNLOADS["bfloat16"]()
    tree = {SHARED: start.shared, ROWS: start.rows}
    received = narrow.decode(narrow.encode(tree, jax.random.key(0)))
    assert largest_change(received, tree) > 1e-4
    exact = dataclasses.replace(rounded, pipelines={})
    same, by_hand = exact.rounds(
        start._replace(shared=received[SHARED], rows=received[ROWS]), frozen
    )
    np.testing.assert_array_equal(report.losses, by_hand.losses)
    assert_same(same.private, after.private)


# Release


def test_a_release_stage_sees_the_sums_and_the_cohort(plain):
    built, (state, frozen) = plain
    noise = engine(release=toys.noisy_sums())
    start, _ = noise.start()
    after, report = noise.rounds(start, frozen, 2)
    assert int(after.release) == 2
    np.testing.assert_allclose(
        report.figures["noise_per_client"], [0.1 / 3, 0.1 / 3, 0.0], rtol=1e-6
    )
    plainly, _ = built.rounds(state, frozen, 1)
    once, _ = noise.rounds(noise.start()[0], frozen, 1)
    assert largest_change(once.shared, plainly.shared) > 1e-4
    assert_same(once.rows, plainly.rows)


def test_a_release_that_is_not_finite_is_latched(plain):
    _, (_, frozen) = plain
    broken = toys.noisy_sums(float("nan"))
    noise = engine(release=broken)
    start, _ = noise.start()
    after, report = noise.rounds(copy(start), frozen)
    assert not report.finite
    assert_same(after, start)


def test_memory_and_release_state_start_anew_with_a_phase():
    both = engine(upload=toys.error_feedback(), release=toys.noisy_sums())
    state, _ = both.start()
    assert int(state.release) == 0
    for leaf in jax.tree.leaves(state.upload):
        assert not leaf.any()
