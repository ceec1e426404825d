"""Clipping by norm, which bounds how far one client can move the variables.

McMahan et al., Learning differentially private recurrent language models, ICLR 2018,
algorithm 1 (flat clipping).
"""

import jax
import jax.numpy as jnp
import optax

from fedpeft_jax.core.bounds import MOST_FLOAT, Bounds, check_number
from fedpeft_jax.core.typing import Key, PyTree
from fedpeft_jax.federated.pipelines.base import Upload
from fedpeft_jax.federated.pipelines.payloads import ENCODED, check_order
from fedpeft_jax.federated.release import Figures
from fedpeft_jax.federated.updates import ClientUpdate


def clip_by_norm(max_norm: float) -> Upload:
    r"""Returns the stage that scales an update to an L2 norm of at most `max_norm`.

    .. math:: \Delta_c \min(1, C / \lVert \Delta_c \rVert_2)

    The norm is that of shared parameters and rows together. The stage reports
    `clipped`, the share of the clients whose update had a larger norm.

    Args:
      max_norm: C, the largest norm, above 0.

    Raises:
      InputError: if `max_norm` is not above 0, or too large for float32.

    Example:
      >>> update = ClientUpdate(jnp.array([3.0, 4.0]), {}, None, 1.0, 0.5)
      >>> payload, _, figures = clip_by_norm(1.0).encode(update, (), None)
      >>> [round(float(x), 6) for x in payload.shared], float(figures["clipped"])
      ([0.6, 0.8], 1.0)
    """
    bounds = Bounds(above=0, most=MOST_FLOAT)
    check_number("clip_by_norm: max_norm", max_norm, bounds)

    def encode(
        update: ClientUpdate, state: PyTree, key: Key
    ) -> tuple[ClientUpdate, PyTree, Figures]:
        del key
        sent = (update.shared, update.rows)
        check_order("clip_by_norm", sent, ENCODED)
        norm = optax.tree.norm(sent)
        # For an update of zero the quotient is infinite, and the factor is 1.
        factor = jnp.minimum(1.0, max_norm / norm)
        shared, rows = jax.tree.map(lambda x: x * factor, sent)
        figures = {"clipped": (norm > max_norm).astype(jnp.float32)}
        return update._replace(shared=shared, rows=rows), state, figures

    return Upload(lambda received: (), encode, lambda payload: payload)
