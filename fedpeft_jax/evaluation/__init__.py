"""Evaluation: ranks held-out items by a score function, and summarises the ranks."""

from fedpeft_jax.evaluation.baselines import BASELINES, Baseline, Known
from fedpeft_jax.evaluation.ranking import Evaluator, Ranks, ScoreFn
from fedpeft_jax.evaluation.scoring import model_scores

__all__ = [
    "BASELINES",
    "Baseline",
    "Evaluator",
    "Known",
    "Ranks",
    "ScoreFn",
    "model_scores",
]
