"""Optimizers, started fresh: what has no gradient stays where it is, bit for bit."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from fedpeft_jax.core.errors import InputError
from fedpeft_jax.core.specs import resolve
from fedpeft_jax.federated.optimizers import OPTIMIZERS

SPECS = {
    "adagrad": "adagrad(learning_rate=0.1)",
    "adam": "adam(learning_rate=0.1)",
    "sgd": "sgd(learning_rate=0.1)",
    "momentum": "sgd(learning_rate=0.1, momentum=0.9)",
    "yogi": "yogi(learning_rate=0.1)",
}
ROWS = jnp.array([[1.0, -2.0], [0.25, 3.0], [-0.5, 0.125]])
GRADIENT = jnp.zeros_like(ROWS).at[1].set(jnp.array([0.5, -2.0]))


def make(name):
    return resolve(SPECS[name], OPTIMIZERS, "client optimizer")()


def test_every_registered_optimizer_is_tested_here():
    assert {spec.partition("(")[0] for spec in SPECS.values()} == set(OPTIMIZERS)


@pytest.mark.parametrize("name", SPECS)
def test_rows_without_a_gradient_do_not_move(name):
    """A client gathers the rows that it touches: the others must not need it."""
    optimizer = make(name)

    @jax.jit
    def step(rows, state):
        change, state = optimizer.update(GRADIENT, state, rows)
        return optax.apply_updates(rows, change), state

    rows, state = ROWS, optimizer.init(ROWS)
    for _ in range(3):
        rows, state = step(rows, state)
    np.testing.assert_array_equal(rows[0], ROWS[0])
    np.testing.assert_array_equal(rows[2], ROWS[2])
    np.testing.assert_array_equal(jnp.sign(rows - ROWS)[1], -jnp.sign(GRADIENT)[1])


@pytest.mark.parametrize("name", SPECS)
def test_the_step_does_not_depend_on_the_other_rows(name):
    optimizer = make(name)
    whole, _ = optimizer.update(GRADIENT, optimizer.init(ROWS), ROWS)
    alone, part = GRADIENT[1:2], ROWS[1:2]
    own, _ = optimizer.update(alone, optimizer.init(part), part)
    np.testing.assert_array_equal(whole[1:2], own)


# The first step for the gradient g, by hand from the papers.
FIRST = {
    "adagrad": lambda g: -0.1 * g / math.sqrt(0.1 + g * g),
    "adam": lambda g: -0.1 * g / (abs(g) + 1e-8),
    "sgd": lambda g: -0.1 * g,
    "momentum": lambda g: -0.1 * g,
    # The first moment is (1 - b1) g, corrected to g; so is the second.
    "yogi": lambda g: -0.1 * g / (abs(g) + 1e-3),
}


@pytest.mark.parametrize("name", SPECS)
def test_the_first_step(name):
    optimizer = make(name)
    change, _ = optimizer.update(GRADIENT, optimizer.init(ROWS), ROWS)
    expected = [FIRST[name](float(g)) for g in GRADIENT[1]]
    np.testing.assert_allclose(change[1], expected, rtol=1e-3)


def test_momentum_remembers():
    optimizer = make("momentum")
    state, total = optimizer.init(0.0), 0.0
    for _ in range(3):
        change, state = optimizer.update(1.0, state)
        total += float(change)
    assert total == pytest.approx(-0.1 * (1 + 1.9 + 2.71))


@pytest.mark.parametrize(
    ("spec", "first"),
    [
        ("adam(learning_rate=0.1, eps=1.0)", -0.1 * 2 / (2 + 1.0)),
        ("adagrad(learning_rate=0.1, initial_accumulator_value=5.0)", -0.1 * 2 / 3),
        ("yogi(learning_rate=0.1, eps=1.0)", -0.1 * 2 / (2 + 1.0)),
    ],
)
def test_arguments_reach_the_optimizer(spec, first):
    optimizer = resolve(spec, OPTIMIZERS, "client optimizer")()
    change, _ = optimizer.update(jnp.float32(2.0), optimizer.init(jnp.float32(0.0)))
    assert float(change) == pytest.approx(first, rel=1e-3)


@pytest.mark.parametrize(
    "spec",
    [
        "sgd(learning_rate=0)",
        "sgd(learning_rate=-0.1)",
        "sgd(learning_rate=1e999)",
        "sgd(learning_rate=0.1, momentum=1.0)",
        "adam(learning_rate=0.1, b1=2)",
        "adam(learning_rate=0.1, eps=0.0)",
        "adagrad(learning_rate=0.1, initial_accumulator_value=-1)",
    ],
)
def test_arguments_out_of_range_are_named(spec):
    last = spec.rstrip(")").split(", ")[-1].split("(")[-1].partition("=")[0]
    with pytest.raises(InputError, match=f"{spec.partition('(')[0]}: {last} must be"):
        resolve(spec, OPTIMIZERS, "client optimizer")()
