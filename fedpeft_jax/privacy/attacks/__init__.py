"""Attacks that infer a client's items from what the server sees."""

from fedpeft_jax.privacy.attacks.metrics import (
    Mean,
    auc,
    mean_over_victims,
    precision_at_positives,
)
from fedpeft_jax.privacy.attacks.moves import (
    main_direction,
    oriented,
    score_moves,
    side_of_positives,
    standardised,
    whitened,
)
from fedpeft_jax.privacy.attacks.shadow import shadow_votes
from fedpeft_jax.privacy.attacks.sparse import score_table, sparse_recovery

__all__ = [
    "Mean",
    "auc",
    "main_direction",
    "mean_over_victims",
    "oriented",
    "precision_at_positives",
    "score_moves",
    "score_table",
    "shadow_votes",
    "side_of_positives",
    "sparse_recovery",
    "standardised",
    "whitened",
]
