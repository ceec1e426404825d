"""Sending the rows that a client touched with their ids, and not the whole tables."""

import jax

from fedpeft_jax.core.typing import Key, PyTree
from fedpeft_jax.federated.pipelines.base import TOUCHED_ITEMS, Upload
from fedpeft_jax.federated.pipelines.payloads import Sparse, Touched, check_order
from fedpeft_jax.federated.release import Figures
from fedpeft_jax.federated.updates import ClientUpdate


def rows() -> Upload:
    """Returns the stage that sends touched rows, each with an id of 4 bytes.

    Stages that make numbers smaller may come before or after it. A run counts the rows
    that the clients touched: their positives and the distinct negatives that they drew.
    Dense rows can be hidden in a sum over clients; ids cannot.

    Example:
      >>> import jax.numpy as jnp
      >>> ids = jnp.array([7, 3])
      >>> update = ClientUpdate({}, {"A": jnp.ones((2, 4))}, ids, 1.0, 0.5)
      >>> payload, _, _ = rows().encode(update, (), None)
      >>> payload.rows.item_ids.tolist(), payload.rows.rows["A"].shape
      ([7, 3], (2, 4))
    """

    def encode(
        update: ClientUpdate, state: PyTree, key: Key
    ) -> tuple[ClientUpdate, PyTree, Figures]:
        check_order("rows", (update.shared, update.rows), (Sparse, Touched))
        if not jax.tree.leaves(update.rows):  # hash tables and codebooks have none
            return update, state, {}
        return update._replace(rows=Touched(update.item_ids, update.rows)), state, {}

    def decode(payload: ClientUpdate) -> ClientUpdate:
        if not isinstance(payload.rows, Touched):
            return payload
        return payload._replace(rows=payload.rows.rows)

    return Upload(
        lambda received: (),
        encode,
        decode,
        touched_rows=True,
        reveals=(TOUCHED_ITEMS,),
    )
