"""Evaluation: ranks held-out items by a score function, and summarises the ranks."""

from fedpeft_jax.evaluation.baselines import BASELINES, Baseline, Known
from fedpeft_jax.evaluation.ranking import Evaluator, ScoreFn
from fedpeft_jax.evaluation.ranks import AnyRanks, JointRanks, Ranks, summarize_ranks
from fedpeft_jax.evaluation.scoring import model_scores

__all__ = [
    "BASELINES",
    "AnyRanks",
    "Baseline",
    "Evaluator",
    "JointRanks",
    "Known",
    "Ranks",
    "ScoreFn",
    "model_scores",
    "summarize_ranks",
]
