"""The optax optimizers that a spec may name, for clients and for the server."""

import functools
import math
from collections.abc import Callable
from typing import Any

import optax

from fedpeft_jax.core.errors import InputError
from fedpeft_jax.core.roles import PRIVATE, ROWS, SHARED

Make = Callable[..., optax.GradientTransformation]

# What an argument must be, beside a number.
_RANGES: dict[str, tuple[str, Callable[[float], bool]]] = {
    "learning_rate": ("above 0 and finite", lambda x: 0 < x < math.inf),
    "momentum": ("at least 0 and below 1", lambda x: 0 <= x < 1),
    "b1": ("at least 0 and below 1", lambda x: 0 <= x < 1),
    "b2": ("at least 0 and below 1", lambda x: 0 <= x < 1),
    "eps": ("above 0", lambda x: x > 0),
    "initial_accumulator_value": ("at least 0", lambda x: x >= 0),
}


def _checked(make: Make) -> Make:
    """Returns a factory that refuses arguments out of their range (InputError)."""

    @functools.wraps(make)
    def check(**arguments: Any) -> optax.GradientTransformation:
        for name, value in arguments.items():
            needs, holds = _RANGES[name]
            if not holds(value):
                raise InputError(
                    f"{make.__name__}: {name} must be {needs}, got {value}"
                )
        return make(**arguments)

    return check


def sgd(learning_rate: float, momentum: float = 0.0) -> optax.GradientTransformation:
    """Stochastic gradient descent; on the server, `sgd(1.0)` adds the plain mean.

    Example:
      >>> sgd(learning_rate=0.5).update(2.0, sgd(0.5).init(0.0))[0]
      -1.0
    """
    return optax.sgd(learning_rate, momentum or None)


def adam(
    learning_rate: float, b1: float = 0.9, b2: float = 0.999, eps: float = 1e-8
) -> optax.GradientTransformation:
    """Adam (Kingma & Ba, ICLR 2015); on the server, FedAdam (Reddi et al., 2021)."""
    return optax.adam(learning_rate, b1=b1, b2=b2, eps=eps)


def adagrad(
    learning_rate: float, initial_accumulator_value: float = 0.1, eps: float = 1e-7
) -> optax.GradientTransformation:
    """Adagrad (Duchi et al., JMLR 2011); on the server, FedAdagrad."""
    return optax.adagrad(learning_rate, initial_accumulator_value, eps)


def yogi(
    learning_rate: float, b1: float = 0.9, b2: float = 0.999, eps: float = 1e-3
) -> optax.GradientTransformation:
    """Yogi (Zaheer et al., NeurIPS 2018); on the server, FedYogi.

    Its moments start at zero and not at optax's 1e-6, which would move every parameter
    that has no gradient.
    """
    scale = optax.scale_by_yogi(b1, b2, eps, initial_accumulator_value=0.0)
    return optax.chain(scale, optax.scale_by_learning_rate(learning_rate))


def by_role(
    shared: optax.GradientTransformation,
    rows: optax.GradientTransformation,
    private: optax.GradientTransformation | None = None,
) -> optax.GradientTransformation:
    """Returns an optimizer of trees by role, `{'params': ..., 'rows': ..., ...}`.

    On the server, the mean over a cohort dilutes a row by the share of the clients that
    touch it, and no shared parameter, so that the two ask for steps of different sizes.
    On a client, what is private takes part in few rounds and learns from one user.

    Args:
      shared: of the shared parameters.
      rows: of the rows.
      private: of the private parameters; None where there are none, on the server.

    Example:
      >>> optimizer = by_role(sgd(1.0), sgd(5.0))
      >>> update = {"params": 2.0, "rows": 2.0}
      >>> optimizer.update(update, optimizer.init(update))[0]
      {'params': -2.0, 'rows': -10.0}
    """
    optimizers = {SHARED: shared, ROWS: rows, PRIVATE: private or optax.identity()}
    return optax.partition(optimizers, lambda tree: {role: role for role in tree})


# No weight decay among them: a row that a client did not touch must not move.
OPTIMIZERS: dict[str, Make] = {
    make.__name__: _checked(make) for make in (adagrad, adam, sgd, yogi)
}
