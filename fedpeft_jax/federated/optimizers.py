"""The optax optimizers that a spec may name, for clients and for the server."""

import functools
from collections.abc import Callable
from typing import Any

import optax

from fedpeft_jax.core.bounds import MOST_FLOAT, Bounds, check_number
from fedpeft_jax.core.roles import PRIVATE, ROWS, SHARED

Make = Callable[..., optax.GradientTransformation]

# float32 rounds the next larger number to 1, with which Adam divides zero by zero.
_RATE = Bounds(least=0, most=0.999999)
_BOUNDS = {
    "learning_rate": Bounds(above=0, most=MOST_FLOAT),
    "momentum": _RATE,
    "b1": _RATE,
    "b2": _RATE,
    "eps": Bounds(above=0, most=1e6),
    "initial_accumulator_value": Bounds(least=0, most=1e6),
}


def _checked(make: Make) -> Make:
    """Returns a factory that raises InputError for an argument out of its range."""

    @functools.wraps(make)
    def check(**arguments: Any) -> optax.GradientTransformation:
        for name, value in arguments.items():
            check_number(f"{make.__name__}: {name}", value, _BOUNDS[name])
        return make(**arguments)

    return check


def sgd(learning_rate: float, momentum: float = 0.0) -> optax.GradientTransformation:
    """Returns gradient descent, with momentum if it is not zero.

    On the server, `sgd(1.0)` adds the aggregate as it is.

    Args:
      learning_rate: size of the step, above 0.
      momentum: decay rate of the momentum, in [0, 1).

    Example:
      >>> sgd(learning_rate=0.5).update(2.0, sgd(0.5).init(0.0))[0]
      -1.0
    """
    return optax.sgd(learning_rate, momentum or None)


def adam(
    learning_rate: float, b1: float = 0.9, b2: float = 0.999, eps: float = 1e-8
) -> optax.GradientTransformation:
    """Returns Adam; on the server this is FedAdam.

    Args:
      learning_rate: size of the step, above 0.
      b1: decay rate of the first moment, in [0, 1).
      b2: decay rate of the second moment, in [0, 1).
      eps: positive number that is added to the denominator.

    Source:
      Kingma and Ba, Adam: a method for stochastic optimization, ICLR 2015; Reddi et
      al., Adaptive federated optimization, ICLR 2021, for the server.

    Example:
      >>> optimizer = adam(learning_rate=0.1)
      >>> round(float(optimizer.update(2.0, optimizer.init(0.0))[0]), 4)
      -0.1
    """
    return optax.adam(learning_rate, b1=b1, b2=b2, eps=eps)


def adagrad(
    learning_rate: float, initial_accumulator_value: float = 0.1, eps: float = 1e-7
) -> optax.GradientTransformation:
    """Returns Adagrad; on the server this is FedAdagrad.

    Args:
      learning_rate: size of the step, above 0.
      initial_accumulator_value: initial sum of squares, at least 0.
      eps: positive number that is added to the sum of squares.

    Source:
      Duchi, Hazan and Singer, Adaptive subgradient methods for online learning and
      stochastic optimization, JMLR 2011; Reddi et al., Adaptive federated
      optimization, ICLR 2021, for the server.

    Example:
      >>> import jax.numpy as jnp
      >>> optimizer = adagrad(learning_rate=0.1)
      >>> update, _ = optimizer.update(jnp.array(2.0), optimizer.init(jnp.array(0.0)))
      >>> round(float(update), 4)
      -0.0988
    """
    return optax.adagrad(learning_rate, initial_accumulator_value, eps)


def yogi(
    learning_rate: float, b1: float = 0.9, b2: float = 0.999, eps: float = 1e-3
) -> optax.GradientTransformation:
    """Returns Yogi; on the server this is FedYogi.

    The moments start at zero and not at optax's 1e-6, which would move every parameter
    that has no gradient.

    Args:
      learning_rate: size of the step, above 0.
      b1: decay rate of the first moment, in [0, 1).
      b2: rate of the additive change of the second moment, in [0, 1).
      eps: positive number that is added to the denominator.

    Source:
      Zaheer et al., Adaptive methods for nonconvex optimization, NeurIPS 2018; Reddi
      et al., Adaptive federated optimization, ICLR 2021, for the server.

    Example:
      >>> import jax.numpy as jnp
      >>> optimizer = yogi(learning_rate=0.1)
      >>> update, _ = optimizer.update(jnp.array(2.0), optimizer.init(jnp.array(0.0)))
      >>> round(float(update), 3)
      -0.1
    """
    scale = optax.scale_by_yogi(b1, b2, eps, initial_accumulator_value=0.0)
    return optax.chain(scale, optax.scale_by_learning_rate(learning_rate))


def by_role(
    shared: optax.GradientTransformation,
    rows: optax.GradientTransformation,
    private: optax.GradientTransformation | None = None,
) -> optax.GradientTransformation:
    """Returns an optimizer of trees by role, `{'params': ..., 'rows': ..., ...}`.

    On the server, the mean over a cohort scales the update of a row by the share of the
    clients that touch the row, but it does not scale shared parameters in this way. The
    two therefore need steps of different sizes. On a client, private parameters are
    trained in few rounds and on the data of one client.

    Args:
      shared: optimizer of the shared parameters.
      rows: optimizer of the rows.
      private: optimizer of the private parameters; None on the server, which has none.

    Returns:
      An optimizer that applies each of these to the tree of its role.

    Example:
      >>> optimizer = by_role(sgd(1.0), sgd(5.0))
      >>> update = {"params": 2.0, "rows": 2.0}
      >>> optimizer.update(update, optimizer.init(update))[0]
      {'params': -2.0, 'rows': -10.0}
    """
    optimizers = {SHARED: shared, ROWS: rows, PRIVATE: private or optax.identity()}
    return optax.partition(optimizers, lambda tree: {role: role for role in tree})


# None of them has weight decay: a row that a client did not touch must not move.
OPTIMIZERS: dict[str, Make] = {
    make.__name__: _checked(make) for make in (adagrad, adam, sgd, yogi)
}
"""Factories by the names that the optimizer settings take."""
