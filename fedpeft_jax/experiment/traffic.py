"""The bytes of one client in one round, measured on the payloads of its pipelines.

Payloads are measured by their shapes, and nothing is computed. The size of the rows
that a client touches, with their ids, is a separate figure.
"""

from typing import NamedTuple

import numpy as np

from fedpeft_jax.backbones import merged_factors, merged_table
from fedpeft_jax.core.roles import FROZEN, SENT, num_bytes, select
from fedpeft_jax.core.typing import Variables
from fedpeft_jax.federated import Algorithm, Sampler
from fedpeft_jax.federated.pipelines.checks import check_download, upload_of_rows

_ID_BYTES = 4


class PhaseTraffic(NamedTuple):
    """The bytes of one client in one round of a phase.

    Attributes:
      name: name of the phase.
      uplink: bytes of the upload's payload.
      downlink: bytes of the download's payload.
      touched: bytes of an upload that holds only the touched rows with their ids, mean
        over clients.
      row: bytes of one touched row, which `uplink` does not include; 0 if rows are sent
        densely.
      reveals: what the upload reveals beyond dense rows.
      factors: bytes of the factors that one merge adds to the frozen table.
      table: bytes of that table.
      frozen: bytes of all frozen tables and codes.
    """

    name: str
    uplink: int
    downlink: int
    touched: float
    row: int = 0
    reveals: tuple[str, ...] = ()
    factors: int = 0
    table: int = 0
    frozen: int = 0


def touched_rows(counts: np.ndarray, sampler: Sampler) -> np.ndarray:
    """Returns the number of rows that each client touches in one round.

    These are its positives, and the distinct negatives that it draws for them.

    Args:
      counts: int[U], each client's number of positives.
      sampler: the sampler; it draws from all items that are no positives.

    Example:
      >>> from fedpeft_jax import fresh_negatives
      >>> touched_rows(np.array([1, 3]), fresh_negatives(num_items=5, num_negatives=2))
      array([3, 5])
    """
    unseen = sampler.num_items - counts
    return counts + np.minimum(counts * sampler.num_negatives, unseen)


def measure_traffic(
    name: str, algorithm: Algorithm, server: Variables, counts: np.ndarray
) -> PhaseTraffic:
    """Measures the payloads of a phase by their shapes, without computing them.

    Args:
      name: name of the phase.
      algorithm: everything that decides what happens in a round.
      server: the server's variables (arrays or their shapes) by collection.
      counts: int[U], each client's number of positives.

    Returns:
      The bytes of one client in one round.

    Example:
      >>> import jax.numpy as jnp
      >>> from fedpeft_jax.experiment.build import make_algorithm, make_model
      >>> from fedpeft_jax.experiment.config import configure
      >>> config = configure(upload="bfloat16")
      >>> algorithm = make_algorithm(
      ...     config.training, config.server, make_model(config.model, num_items=9)
      ... )
      >>> lora = {"params": {"B": jnp.zeros((32, 4))}, "rows": {"A": jnp.zeros((9, 4))}}
      >>> measure_traffic("peft", algorithm, lora, np.array([1, 8]))
      PhaseTraffic(name='peft', uplink=328, downlink=656, touched=322.0, ...)
    """
    sampler = algorithm.training.sampler
    num_items, sent = sampler.num_items, select(server, SENT)
    stages = algorithm.upload
    upload, one, two = (
        upload_of_rows(stages, sent, number) for number in (num_items, 1, 2)
    )
    download = check_download(algorithm.download, sent)
    # Scales belong to no row, and the bytes of a row do not depend on their number.
    row = num_bytes(two.rows) - num_bytes(one.rows)
    fixed = num_bytes((upload.shared, one.rows)) - row
    uplink = fixed if stages.touched_rows else num_bytes((upload.shared, upload.rows))
    with_id = row + _ID_BYTES if row and not stages.touched_rows else row
    touched = fixed + float(np.mean(touched_rows(counts, sampler))) * with_id
    return PhaseTraffic(
        name,
        uplink,
        num_bytes(download),
        touched,
        row=row if stages.touched_rows else 0,
        reveals=stages.reveals if row or not stages.touched_rows else (),
        factors=num_bytes(merged_factors(server)),
        table=num_bytes(merged_table(server)),
        frozen=num_bytes(select(server, (FROZEN,))),
    )
