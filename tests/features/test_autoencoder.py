"""The autoencoder learns, is exact and repeatable, and refuses a collapse."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fedpeft_jax.core.errors import InputError
from fedpeft_jax.core.specs import resolve
from fedpeft_jax.features import PRETRAINERS, Autoencoder, pretrain_autoencoder
from fedpeft_jax.features.autoencoder import train_autoencoder
from fedpeft_jax.features.latents import standardize_encodings
from fedpeft_jax.features.minibatches import Minibatches, fit_network
from tests.helpers import REAL_DATA

SMALL = {"latent": 4, "hidden": (24,), "epochs": 50, "batch_size": 64}


def _assert_same(actual, expected):
    jax.tree.map(np.testing.assert_array_equal, actual, expected)


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


def _train(encodings, latent=4, hidden=(24,), **settings):
    """The model and variables that `pretrain_autoencoder` evaluates, and the loss."""
    settings = {"epochs": 50, "batch_size": 64, "learning_rate": 1e-2} | settings
    data = jnp.asarray(standardize_encodings(encodings))
    return train_autoencoder(
        jax.random.key(0), data, latent, hidden, Minibatches(**settings)
    )


def test_explained_variance_is_of_the_inputs():
    data = _planted()
    result = _pretrain(encodings=data)
    model, variables, _ = _train(data)
    inputs = standardize_encodings(data)
    latents = model.apply(variables, inputs, method="encode")
    np.testing.assert_allclose(result.latents, latents, rtol=1e-4, atol=1e-5)
    output = np.asarray(model.apply(variables, inputs), float)
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


@pytest.mark.parametrize("pieces", [1, 7])  # of 50 epochs, the last of 7 is shorter
def test_pieces_do_not_matter(pieces):
    data = jnp.asarray(standardize_encodings(_planted()))
    model = Autoencoder(features=20, hidden=(24,), latent=4)

    def fit(**kwargs):
        variables = model.init(jax.random.key(1), data)
        settings = Minibatches(epochs=50, batch_size=64, learning_rate=1e-2)
        return fit_network(
            model, variables, data, jax.random.key(0), settings, **kwargs
        )

    _assert_same(fit(pieces=pieces), fit())


def test_compiles_once(caplog):
    def compilations(**settings):
        caplog.clear()
        with jax.log_compiles():
            _pretrain(**settings)
        return [r for r in caplog.records if "Finished XLA comp" in r.getMessage()]

    # Another number of epochs is another program.
    assert compilations(epochs=23)
    assert compilations(epochs=24)
    other = {"encodings": _planted(seed=5), "learning_rate": 5e-3, "noise": 0.5}
    assert not compilations(epochs=24, seed=1, **other)


def test_strict_jax_flags():
    with jax.numpy_rank_promotion("raise"), jax.debug_key_reuse(True):
        _pretrain(hidden=())


def test_every_item_is_seen_once_an_epoch():
    # With a negligible step size, an epoch's loss is the mean over the items of the
    # loss at the start for any batches: 50 items per batch, or 19 with two fillers.
    settings = {"learning_rate": 1e-12, "noise": 0.0, "hidden": ()}
    data = standardize_encodings(_planted())
    losses = []
    for batch_size in (64, 20):
        model, variables, history = _train(data, batch_size=batch_size, **settings)
        losses.append(history)
        start = np.square(np.asarray(model.apply(variables, data)) - data).mean()
        np.testing.assert_allclose(history, start, rtol=1e-4)
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
    assert "`full_init=random`" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("encodings", "settings", "message"),
    [
        (np.zeros(5), {}, "shape"),
        (np.zeros((1, 5)), {}, "shape"),
        (np.zeros((5, 0)), {}, "shape"),
        (np.array([[1.0, np.nan], [0.0, 1.0]]), {}, "NaN"),
        (None, {"latent": 0}, "latent must be 1 or more, got 0"),
        (None, {"hidden": (8, 0)}, r"hidden=\(8, 0\) must be a tuple of layer sizes"),
        (None, {"hidden": 8}, "hidden=8 must be a tuple of layer sizes"),
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


def test_the_registered_pretrainer_is_pretrain_autoencoder():
    pretrain = resolve("autoencoder", PRETRAINERS, "pretraining")()
    encodings = _planted(num_items=30, features=6)
    _assert_same(
        pretrain(jax.random.key(3), encodings, latent=2),
        pretrain_autoencoder(jax.random.key(3), encodings, latent=2),
    )


def test_the_registered_pretrainer_takes_arguments_and_progress():
    text = "autoencoder(hidden=(24,), epochs=50, batch_size=64, learning_rate=1e-2)"
    pretrain = resolve(text, PRETRAINERS, "pretraining")()
    calls = []
    result = pretrain(
        jax.random.key(0),
        _planted(),
        latent=4,
        progress=lambda *call: calls.append(call),
    )
    _assert_same(result, _pretrain())
    assert [done for done, _, _ in calls] == list(range(5, 51, 5))


def test_the_registered_pretrainer_has_the_same_arguments_and_defaults():
    function = inspect.signature(pretrain_autoencoder).parameters
    for name, parameter in inspect.signature(
        PRETRAINERS["autoencoder"]
    ).parameters.items():
        assert parameter.default == function[name].default
        assert parameter.annotation == function[name].annotation


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("hidden=(8, 0)", "hidden=.* must be a tuple of layer sizes"),
        ("hidden=8", "cannot take hidden=8"),
        ("hidden=('8',)", "cannot take hidden="),
        ("epochs=0", "epochs must be .* at least 1 .* got 0"),
        ("epochs=1.5", "cannot take epochs=1.5"),
        ("batch_size=0", "batch_size must be .* at least 1"),
        ("learning_rate=0.0", "learning_rate must be above 0"),
        ("noise=-1", "noise must be at least 0"),
        ("latent=4", "no argument 'latent'"),
    ],
)
def test_the_registered_pretrainer_refuses_bad_arguments(arguments, message):
    with pytest.raises(InputError, match=message):
        resolve(f"autoencoder({arguments})", PRETRAINERS, "pretraining")()


def test_real_encodings_beat_pca_of_a_quarter_of_the_width():
    path = REAL_DATA / "Software_text_minilm.npz"
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
