"""Turns a federated model into a score function: all of its clients, vectorised."""

from typing import Any

import jax

from fedpeft_jax.backbones.base import Backbone
from fedpeft_jax.core.roles import FROZEN, PRIVATE, ROWS, SHARED, gather_rows
from fedpeft_jax.core.typing import Array, History, PyTree
from fedpeft_jax.evaluation.ranking import ScoreFn


def model_scores(model: Backbone) -> ScoreFn:
    """Returns the score function of a model.

    Its variables are the model's by collection, with the private ones of all clients
    [U, ...]. Make it once per model: the evaluator compiles each function once.
    """

    def score(
        variables: PyTree, client_ids: Array, history: History, ids: Array | None
    ) -> Array:
        server = {role: variables[role] for role in (SHARED, ROWS, FROZEN)}

        def one(private: PyTree, history: History, ids: Array | None) -> Array:
            scores: Any = model.apply(
                {**server, PRIVATE: private},
                history,
                ids,
                deterministic=True,
                method="score",
            )
            return scores

        private = gather_rows(variables[PRIVATE], client_ids)
        return jax.vmap(one, (0, 0, None if ids is None else 0))(private, history, ids)

    return score
