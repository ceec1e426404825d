"""The score function of a federated model, vectorised over its clients."""

from typing import Any

import jax

from fedpeft_jax.backbones.base import Backbone
from fedpeft_jax.core.roles import FROZEN, PRIVATE, ROWS, SHARED, gather_rows
from fedpeft_jax.core.typing import Array, History, PyTree
from fedpeft_jax.evaluation.ranking import ScoreFn


def model_scores(model: Backbone) -> ScoreFn:
    """Returns the score function of a model.

    Call this once per model, because the evaluator compiles each function once.

    Args:
      model: the recommender.

    Returns:
      A score function. Its variables are the model's by collection, where the private
      parameters are those of all clients, arrays [U, ...].
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
