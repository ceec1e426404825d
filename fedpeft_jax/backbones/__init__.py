"""Recommenders, and their registry."""

from collections.abc import Callable

from fedpeft_jax.backbones.base import Backbone
from fedpeft_jax.backbones.fedmf import FedMF

BACKBONES: dict[str, Callable[..., Backbone]] = {"fedmf": FedMF}

__all__ = ["BACKBONES", "Backbone", "FedMF"]
