"""Which runs may share one compiled program, and which numbers it takes as arguments.

A program depends on shapes and on the operations of a round. Seeds, the scale of the
latents and central noise are in the arrays that a round receives already. The rates of
optimizers are constants of the program, unless they are made arguments of it, as
`with_rates` does. Everything else is part of the key.
"""

import functools
import inspect
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from fedpeft_jax.core.specs import arguments, parse
from fedpeft_jax.core.typing import Array
from fedpeft_jax.experiment.config import RunConfig
from fedpeft_jax.experiment.plugins import REGISTRIES, factory_of
from fedpeft_jax.experiment.privacy_settings import make_mechanism, noises_each_client
from fedpeft_jax.federated import Algorithm, by_role, with_server_optimizer

Rate = tuple[str, str]
"""The name of a setting and of an argument of its spec."""

_CLIENT = ("client_optimizer", "private_optimizer")
_SERVER = ("server_optimizer", "shared_server_optimizer")

# These settings change when a run does something, where it writes, or the values of
# arrays. A shape that follows from them nevertheless is compared with the arrays.
_NO_PROGRAM: Mapping[str, frozenset[str] | None] = {
    "text": None,
    "link": None,
    "privacy": None,  # see `_privacy`
    "evaluation": frozenset({"eval_every"}),
    "run": frozenset({"client_chunk", "tile_rows", "max_buckets"}),
}
_VALUES = {"model": ("latent_scale", "full_init")}


def program_key(config: RunConfig) -> Hashable:
    """Returns a value that is equal for runs whose rounds may share a program.

    Args:
      config: a configuration.

    Example:
      >>> from fedpeft_jax import configure
      >>> def key(**settings):
      ...   return program_key(configure(**settings))
      >>> key(seed=0) == key(seed=1, client_optimizer="adam(learning_rate=0.3)")
      True
      >>> key() == key(embedding="lora(rank=8)")
      False
    """
    groups = []
    for group, settings in vars(config).items():
        kept = _NO_PROGRAM.get(group, frozenset(vars(settings)))
        for name in sorted(kept or ()):
            if name in _VALUES.get(group, ()):
                continue
            value = getattr(settings, name)
            if name in (*_CLIENT, *_SERVER):
                value = _optimizer_key(name, value)
            elif name == "embedding":
                value = _without_scales(value)
            groups.append((name, value))
    return (*groups, ("privacy", _privacy(config)))


def rates_of(config: RunConfig) -> dict[Rate, float]:
    """Returns the numbers of optimizers that a program can take as arguments.

    Args:
      config: a configuration.

    Example:
      >>> from fedpeft_jax import configure
      >>> rates_of(configure(merge_every=0))["server_optimizer", "learning_rate"]
      5.0
    """
    found = {}
    for setting, spec in _optimizers(config).items():
        name, values = _read(setting, spec)
        for argument, value in values.items():
            if _can_be_argument(setting, name, tuple(values.items()), argument):
                found[setting, argument] = float(value)
    return found


def differing_rates(configs: Sequence[RunConfig]) -> list[dict[Rate, float]]:
    """Returns the rates of each run that are not the same in all of them.

    Args:
      configs: configurations of the same `program_key`.

    Example:
      >>> from fedpeft_jax import configure
      >>> rates = [0.1, 0.2]
      >>> specs = [f"sgd(learning_rate={rate})" for rate in rates]
      >>> differing_rates([configure(server_optimizer=spec) for spec in specs])[1]
      {('server_optimizer', 'learning_rate'): 0.2}
    """
    every = [rates_of(config) for config in configs]
    names = [name for name in every[0] if len({rates[name] for rates in every}) > 1]
    return [{name: rates[name] for name in names} for rates in every]


def with_rates(
    config: RunConfig, algorithm: Algorithm, rates: Mapping[Rate, Array]
) -> Algorithm:
    """Returns an algorithm whose optimizers have some rates from outside.

    Args:
      config: the configuration of the algorithm.
      algorithm: everything that decides what happens in a round.
      rates: float32[] each, traced or not; all others are those of the configuration.
    """
    if not rates:
        return algorithm

    def make(setting: str) -> Any:
        name, values = _read(setting, _optimizers(config)[setting])
        given = {a: rates.get((setting, a), value) for a, value in values.items()}
        return _factory(setting, name)(**given)

    client, private = map(make, _CLIENT)
    rows, shared = map(make, _SERVER)
    aggregator = factory_of("aggregator", config.server.aggregator)()
    return algorithm._replace(
        training=algorithm.training._replace(
            optimizer=by_role(client, client, private)
        ),
        aggregator=with_server_optimizer(aggregator, by_role(shared, rows)),
    )


def _optimizers(config: RunConfig) -> dict[str, str]:
    settings = {name: getattr(config.training, name) for name in _CLIENT}
    return settings | {name: getattr(config.server, name) for name in _SERVER}


def _read(setting: str, spec: str) -> tuple[str, dict[str, Any]]:
    """Returns the name in a spec, and all arguments, defaults included."""
    name, given = parse(spec)
    parameters = arguments(REGISTRIES[setting][name])
    defaults = {n: p.default for n, p in parameters.items()}
    return name, {**defaults, **given}


def _factory(setting: str, name: str) -> Callable[..., Any]:
    """Returns the factory behind its checks, which cannot read a traced number.

    `configure` has checked the numbers.
    """
    return inspect.unwrap(REGISTRIES[setting][name])


def _optimizer_key(setting: str, spec: str) -> Hashable:
    name, values = _read(setting, spec)
    return name, tuple(
        (a, None if _can_be_argument(setting, name, tuple(values.items()), a) else v)
        for a, v in values.items()
    )


@functools.cache
def _can_be_argument(
    setting: str, name: str, values: tuple[tuple[str, Any], ...], argument: str
) -> bool:
    """Returns whether an optimizer can be built with an argument that is traced."""
    if type(dict(values)[argument]) not in (int, float):
        return False

    def step(value: Array) -> Any:
        optimizer = _factory(setting, name)(**{**dict(values), argument: value})
        parameters = jnp.zeros(2)
        state = optimizer.init(parameters)
        return optimizer.update(parameters, state, parameters)

    try:
        jax.eval_shape(step, jax.ShapeDtypeStruct((), jnp.float32))
    except (TypeError, ValueError, ArithmeticError, AttributeError):
        return False  # the factory compares the number, or it decides a shape
    return True


def _without_scales(spec: str) -> Hashable:
    """Returns a spec of an embedding without the scales of its initial values."""
    if spec == "none":
        return spec
    name, values = _read("embedding", spec)
    scales = ("init_scale", "restart_scale")
    return name, tuple((a, v) for a, v in values.items() if a not in scales)


def _privacy(config: RunConfig) -> Hashable:
    """Returns what a program depends on: the noise itself is in the state."""
    mechanism = make_mechanism(config.privacy)
    if mechanism is None:
        return None
    noisy = mechanism.noise_multiplier != 0  # None follows from a target above 0
    exact: tuple[Any, ...] = ()
    if config.privacy.privacy_model == "local":
        exact = (mechanism.clip,)  # a client's own clip is a constant of the program
        if noises_each_client(config.privacy, config.training):
            exact = (mechanism, config.privacy.target_epsilon, config.run.rounds)
            exact += (config.run.seed, config.privacy.delta, config.privacy.adjacency)
    adaptive = mechanism.adaptive and mechanism.adaptive._replace(count_noise=None)
    bounded = mechanism.clip != float("inf")
    name = config.privacy.privacy_model, mechanism.name
    return (*name, noisy, bounded, adaptive, exact)
