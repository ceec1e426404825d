"""Uses a run as a model: loads it, recommends, folds new users in, and exports it."""

from fedpeft_jax.serving.fold_in import FoldedIn
from fedpeft_jax.serving.loading import load
from fedpeft_jax.serving.trained_model import TrainedModel
from fedpeft_jax.serving.training import train

__all__ = ["FoldedIn", "TrainedModel", "load", "train"]
