"""The autoencoder learns, is exact and repeatable, and refuses a collapse."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fedpeft_jax.core.errors import InputError
from fedpeft_jax.features import (
    Autoencoder,
    autoencoder,
    minibatches,
    pretrain_autoencoder,
)
from tests.helpers import REAL_DATA

DATA = REAL_DATA
SMALL = {"latent": 4, "hidden": (24,), "epochs": 50, "batch_size": 64}


def _planted(num_items=150, features=20, rank=3, seed=0):
    rng = np.random.default_rng(seed)
    factors = rng.normal(size=(num_items, rank))
    noise = 0.05 * rng.normal(size=(num_items, features))
    return 7.0 + factors @ rng.normal(size=(rank, features)) + noise


def _pretrain(seed=0, encodings=None, **settings):
    data = _planted() if encodings is None else encodings
    settings = SMALL | {"learning_rate": 1e-2} | settings
    return pretrain_autoencoder(jax.random.key(seed), data, **settings)


def test_learns_a_planted_structure():
    data = _planted()
    result = _pretrain(encodings=data)
    # A constant explains 0; the planted three factors are nearly all of the variance.
    assert 0.9 < result.explained_variance <= 1.0
    assert result.loss_history[-1] < 0.5 * result.loss_history[0]
    assert result.loss_history.shape == (50,)
    assert result.latents.shape == (150, 4)
    assert result.latents.dtype == jnp.float32
    np.testing.assert_allclose(
        result.latent_spread, np.asarray(result.latents).std(axis=0), rtol=1e-4
    )
    # The latents themselves hold the structure: a linear map of them predicts the data.
    inputs = np.column_stack([result.latents, np.ones(150)])
    fitted = inputs @ np.linalg.lstsq(inputs, data, rcond=None)[0]
    centred = data - data.mean(axis=0)
    assert np.square(fitted - data).sum() < 0.2 * np.square(centred).sum()


def test_explained_variance_is_of_the_inputs(monkeypatch):
    data = _planted()
    seen = {}
    evaluate = autoencoder._evaluate

    def spy(model, params, inputs):
        seen.update(model=model, params=params, inputs=inputs)
        return evaluate(model, params, inputs)

    monkeypatch.setattr(autoencoder, "_evaluate", spy)
    result = _pretrain(encodings=data)
    output = np.asarray(seen["model"].apply(seen["params"], seen["inputs"]), float)
    scale = np.sqrt(data.var(axis=0).mean())
    errors = data - (data.mean(axis=0) + scale * output)
    expected = 1.0 - np.square(errors).sum() / (len(data) * data.var(axis=0).sum())
    assert result.explained_variance == pytest.approx(expected, abs=1e-4)


def test_same_key_same_latents_and_progress_changes_nothing():
    calls = []
    first = _pretrain()
    again = _pretrain(progress=lambda *call: calls.append(call))
    other = _pretrain(seed=1)
    np.testing.assert_array_equal(first.latents, again.latents)
    assert np.abs(first.latents - other.latents).max() > 1e-2
    assert [done for done, _, _ in calls] == list(range(5, 51, 5))
    for done, total, loss in calls:
        assert total == 50
        assert loss == again.loss_history[done - 1]


def test_pieces_do_not_matter(monkeypatch):
    pieces = _pretrain()
    monkeypatch.setattr(minibatches, "_PIECES", 7)  # the last piece is shorter
    whole = _pretrain()
    np.testing.assert_array_equal(pieces.latents, whole.latents)
    np.testing.assert_array_equal(pieces.loss_history, whole.loss_history)


def test_compiles_once():
    minibatches._train.clear_cache()
    _pretrain()
    _pretrain(seed=1, encodings=_planted(seed=5), learning_rate=1e-2, noise=0.5)
    assert minibatches._train._cache_size() == 1


def test_strict_jax_flags():
    with jax.numpy_rank_promotion("raise"), jax.debug_key_reuse(True):
        _pretrain(hidden=())


def test_every_item_is_seen_once_an_epoch():
    # With a step size of practically nothing, an epoch's loss is the mean over the
    # items of the loss at the start, whatever the batches: 50 a batch without fillers,
    # or 19 with two.
    settings = {"learning_rate": 1e-12, "noise": 0.0, "hidden": ()}
    losses = []
    for batch_size in (64, 20):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(autoencoder, "refuse_collapse", lambda *_: None)
            result = _pretrain(batch_size=batch_size, **settings)
        losses.append(result.loss_history)
        start = 1.0 - result.explained_variance
        np.testing.assert_allclose(result.loss_history, start, rtol=1e-4)
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-5)


def test_shapes_mirror():
    model = Autoencoder(features=20)
    params = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 20)))["params"]
    shapes = {
        part: [params[part][f"Dense_{layer}"]["kernel"].shape for layer in range(4)]
        for part in ("encoder", "decoder")
    }
    assert shapes["encoder"] == [(20, 512), (512, 256), (256, 128), (128, 32)]
    assert shapes["decoder"] == [(32, 128), (128, 256), (256, 512), (512, 20)]


@pytest.mark.parametrize("value", [0.0, 3.7])
def test_equal_encodings_are_refused(value):
    with pytest.raises(InputError, match="all 30 items have the same encoding"):
        _pretrain(encodings=np.full((30, 8), value, np.float32))


@pytest.mark.parametrize("learning_rate", [1e4, 1e-12])
def test_a_collapse_is_refused(learning_rate):
    with pytest.raises(InputError, match="explained variance") as caught:
        _pretrain(learning_rate=learning_rate)
    assert "--full_init=random" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("encodings", "settings", "message"),
    [
        (np.zeros(5), {}, "shape"),
        (np.zeros((1, 5)), {}, "shape"),
        (np.zeros((5, 0)), {}, "shape"),
        (np.array([[1.0, np.nan], [0.0, 1.0]]), {}, "NaN"),
        (None, {"latent": 0}, "latent must be 1 or more, got 0"),
        (None, {"hidden": (8, 0)}, r"hidden\[1\]"),
        (None, {"epochs": 0}, "epochs"),
        (None, {"batch_size": 0}, "batch_size"),
        (None, {"learning_rate": 0.0}, "learning_rate"),
        (None, {"learning_rate": float("inf")}, "learning_rate"),
        (None, {"noise": -1.0}, "noise"),
    ],
)
def test_bad_input_is_refused(encodings, settings, message):
    with pytest.raises(InputError, match=message):
        _pretrain(encodings=encodings, **settings)


def test_real_encodings_beat_pca_of_a_quarter_of_the_width():
    path = DATA / "Software_text_minilm.npz"
    if not path.exists():
        pytest.skip("no shared/data/Software_text_minilm.npz beside the repository")
    with np.load(path) as arrays:
        encodings = arrays["embedding"].astype(np.float32)
    result = pretrain_autoencoder(
        jax.random.key(0), encodings, hidden=(128,), epochs=30, learning_rate=5e-3
    )
    values = np.square(np.linalg.svd(encodings - encodings.mean(0), compute_uv=False))
    assert result.explained_variance > values[:8].sum() / values.sum()
    assert result.latent_spread.min() > 0.1 * result.latent_spread.max()
