"""A federated model as the evaluator sees it: all of its clients, vectorised."""

from typing import Any

import jax

from fedpeft_jax.backbones.base import Backbone
from fedpeft_jax.core.roles import FROZEN, PRIVATE, ROWS, SHARED, gather_rows
from fedpeft_jax.core.typing import Array, History, PyTree
from fedpeft_jax.evaluation.ranking import ScoreFn


def model_scores(model: Backbone) -> ScoreFn:
    """Returns the evaluator's view of a model: all of its clients, vectorised.

    The params are the variables by collection, private ones for all clients.
    """

    def score(
        params: PyTree, client_ids: Array, history: History, ids: Array | None
    ) -> Array:
        server = {role: params[role] for role in (SHARED, ROWS, FROZEN)}

        def one(private: PyTree, history: History, ids: Array | None) -> Array:
            variables = {**server, PRIVATE: private}
            scores: Any = model.apply(
                variables, history, ids, deterministic=True, method="score"
            )
            return scores

        private = gather_rows(params[PRIVATE], client_ids)
        return jax.vmap(one, (0, 0, None if ids is None else 0))(private, history, ids)

    return score
