"""The plugins that settings name by specs, and how a spec becomes one."""

import functools
from collections.abc import Callable, Mapping
from typing import Any

from fedpeft_jax.backbones import BACKBONES
from fedpeft_jax.core import specs
from fedpeft_jax.core.errors import InputError
from fedpeft_jax.embeddings import EMBEDDINGS
from fedpeft_jax.federated.aggregators import AGGREGATORS
from fedpeft_jax.federated.losses import LOSSES
from fedpeft_jax.federated.optimizers import OPTIMIZERS

REGISTRIES: dict[str, Mapping[str, Callable[..., Any]]] = {
    "backbone": BACKBONES,
    "embedding": EMBEDDINGS,
    "aggregator": AGGREGATORS,
    "loss": LOSSES,
    "client_optimizer": OPTIMIZERS,
    "private_optimizer": OPTIMIZERS,
    "server_optimizer": OPTIMIZERS,
    "shared_server_optimizer": OPTIMIZERS,
}
"""The plugins that each setting may name."""


def factory_of(setting: str, spec: str) -> Callable[..., Any]:
    """Returns the factory that a setting's spec names, its arguments bound.

    What the factory cannot make of its arguments is an `InputError` that names the
    setting.

    Raises:
      InputError: for an unknown name or argument.

    Example:
      >>> factory_of("embedding", "lora(rank=2)")(num_items=5, features=3).rank
      2
    """
    factory = specs.resolve(spec, REGISTRIES[setting], setting.replace("_", " "))

    @functools.wraps(factory.func)  # type: ignore[attr-defined]
    def build(*args: Any, **kwargs: Any) -> Any:
        try:
            return factory(*args, **kwargs)
        except InputError:
            raise
        except (TypeError, ValueError) as error:
            raise InputError(f"{setting}={spec!r} cannot be built: {error}") from error

    return build
