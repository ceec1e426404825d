"""Finds the plugins that settings name."""

import functools
from collections.abc import Callable, Mapping
from typing import Any

from fedpeft_jax.backbones import BACKBONES
from fedpeft_jax.core import specs
from fedpeft_jax.core.errors import InputError, brief
from fedpeft_jax.embeddings import EMBEDDINGS
from fedpeft_jax.features import PRETRAINERS
from fedpeft_jax.federated import AGGREGATORS, DOWNLOADS, LOSSES, OPTIMIZERS, UPLOADS
from fedpeft_jax.privacy.mechanisms import MECHANISMS

REGISTRIES: dict[str, Mapping[str, Callable[..., Any]]] = {
    "backbone": BACKBONES,
    "embedding": EMBEDDINGS,
    "pretraining": PRETRAINERS,
    "loss": LOSSES,
    "client_optimizer": OPTIMIZERS,
    "private_optimizer": OPTIMIZERS,
    "upload": UPLOADS,
    "aggregator": AGGREGATORS,
    "server_optimizer": OPTIMIZERS,
    "shared_server_optimizer": OPTIMIZERS,
    "download": DOWNLOADS,
    "privacy": MECHANISMS,
}
"""The plugins that each setting may name, as factories by name."""


def factory_of(setting: str, spec: str) -> Callable[..., Any]:
    """Returns the factory that a spec names, with the arguments of the spec bound.

    If the factory cannot use its arguments, it raises an `InputError` that names the
    setting.

    Args:
      setting: name of the setting.
      spec: value of the setting, e.g. `'lora(rank=4)'`.

    Raises:
      InputError: for an unknown name or argument.

    Example:
      >>> factory_of("embedding", "lora(rank=2)")(num_items=5, features=3).rank
      2
    """
    kind = setting.replace("_", " ")
    factory = specs.resolve(spec, REGISTRIES[setting], kind)
    return _naming(setting, spec, factory)


def factories_of(setting: str, chain: str) -> list[Callable[..., Any]]:
    """Returns the factories of a setting that holds several specs.

    Args:
      setting: name of the setting.
      chain: value of the setting, specs separated by commas.

    Raises:
      InputError: for an unknown name or argument.

    Example:
      >>> stages = factories_of("upload", "clip_by_norm(max_norm=1.0), bfloat16")
      >>> [type(make()).__name__ for make in stages]
      ['Upload', 'Upload']
    """
    kind = setting.replace("_", " ")
    found = specs.resolve_chain(chain, REGISTRIES[setting], kind)
    return [_naming(setting, chain, factory) for factory in found]


def _naming(setting: str, spec: str, factory: Callable[..., Any]) -> Callable[..., Any]:
    """Returns the same factory, with errors that name the setting."""

    @functools.wraps(factory.func)  # type: ignore[attr-defined]
    def build(*args: Any, **kwargs: Any) -> Any:
        try:
            return factory(*args, **kwargs)
        except InputError as error:
            raise InputError(f"`{setting}={brief(spec)}`: {error}") from None
        except (TypeError, ValueError, ArithmeticError) as error:
            reason = " ".join(str(error).split())
            raise InputError(
                f"`{setting}={brief(spec)}` cannot be built: {reason}"
            ) from error

    return build
