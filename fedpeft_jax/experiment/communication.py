"""What a run sends, in bytes, as a deployment would: dense, unpadded, without secrets.

A client downloads every shared parameter and every trained row and uploads an update
of the same size; private parameters never travel. Frozen tables and codes are sent
once to each client that takes part. Gathering rows is how the simulator computes, not
what it claims to send: the size of the rows that clients touch, with their ids, is a
figure of its own.
"""

import dataclasses
from typing import Any

import jax
import numpy as np

from fedpeft_jax.core.roles import FROZEN, ROWS, SHARED, num_bytes, select
from fedpeft_jax.core.typing import PyTree, Variables

_ID_BYTES = 4


@dataclasses.dataclass(frozen=True)
class PhaseTraffic:
    """What one client sends in one round of a phase (and receives: the same).

    Attributes:
      dense: bytes of all shared parameters and all trained rows.
      touched: bytes of the shared parameters and of the touched rows with their ids,
        the mean over clients.
    """

    dense: int
    touched: float

    @classmethod
    def of(
        cls,
        variables: Variables,
        counts: np.ndarray,
        num_items: int,
        num_negatives: int,
    ) -> "PhaseTraffic":
        """Measures variables (arrays or their shapes).

        Args:
          variables: the server's, by collection.
          counts: int[U], each client's number of positives.
          num_items: I.
          num_negatives: M, negatives a positive.

        Example:
          >>> import jax.numpy as jnp
          >>> lora = {"params": {"B": jnp.zeros((32, 4))}, "rows": {"A": jnp.zeros((9, 4))}}
          >>> PhaseTraffic.of(lora, np.array([1, 8]), num_items=9, num_negatives=1)
          PhaseTraffic(dense=656, touched=622.0)
        """  # noqa: E501
        parts = select(variables, (SHARED, ROWS))
        tables = jax.tree.leaves(parts[ROWS])
        row = num_bytes(tables) / num_items + _ID_BYTES if tables else 0
        rows = counts + np.minimum(counts * num_negatives, num_items - counts)
        touched = num_bytes(parts[SHARED]) + float(np.mean(rows)) * row
        return cls(num_bytes(parts), touched)


def one_time_bytes(variables: Variables) -> int:
    """Returns the size of the frozen tables and codes, sent once to a client."""
    return num_bytes(select(variables, (FROZEN,)))


def summarize_traffic(
    *,
    phases: dict[str, tuple[PhaseTraffic, int]],
    cohort_size: int,
    participants: int,
    frozen: PyTree,
    full_dense: int,
) -> dict[str, Any]:
    """Returns the `communication` part of a run's summary.

    Args:
      phases: `'warm_up'` and `'peft'`: the traffic of a client in a round, and the
        number of rounds.
      cohort_size: C, clients a round.
      participants: clients that ever took part.
      frozen: variables whose `frozen` collection is sent once to each of them.
      full_dense: bytes each way of the same run with a trained table and no adapter.

    Example:
      >>> phases = {"warm_up": (PhaseTraffic(100, 10.0), 1),
      ...           "peft": (PhaseTraffic(20, 5.0), 4)}
      >>> traffic = summarize_traffic(phases=phases, cohort_size=2, participants=3,
      ...                             frozen={}, full_dense=100)
      >>> traffic["total_bytes"], traffic["fraction_of_full"]
      (720, 0.36)
    """
    rounds = sum(number for _, number in phases.values())
    moving = sum(2 * cohort_size * t.dense * number for t, number in phases.values())
    once = one_time_bytes(frozen) * participants
    full = 2 * cohort_size * full_dense * rounds
    dense = {name: traffic.dense for name, (traffic, _) in phases.items()}
    return {
        "uplink_bytes_per_client_round": dense,
        "downlink_bytes_per_client_round": dict(dense),
        "touched_rows_bytes_per_client_round": {
            name: round(traffic.touched) for name, (traffic, _) in phases.items()
        },
        "one_time_bytes": once,
        "total_bytes": moving + once,
        "full_total_bytes": full,
        "fraction_of_full": (moving + once) / full,
    }
