"""Stages that send 4 bits for each number, two in a byte, rounded without bias.

The levels are -7..7. `int8.py` has the source of the rounding.
"""

from fedpeft_jax.federated.pipelines.base import Download, Upload
from fedpeft_jax.federated.pipelines.levels import quantized_download, quantized_upload


def int4_upload(block: str = "column") -> Upload:
    """Returns the stage that sends an update as levels -7..7 and float32 scales.

    A row with an odd number of columns has half a byte of padding.

    Args:
      block: which numbers share a scale: `'column'`, `'row'` or `'tensor'`, as in
        `int8_upload`.

    Raises:
      InputError: for another block.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from fedpeft_jax.federated.updates import ClientUpdate
      >>> update = ClientUpdate(jnp.array([0.5, -1.0, 0.0]), {}, None, 1.0, 0.5)
      >>> payload, _, _ = int4_upload().encode(update, (), jax.random.key(0))
      >>> payload.shared.levels.shape
      (2,)
    """
    return quantized_upload(4, block)


def int4_download(block: str = "column") -> Download:
    """Returns the stage that sends the server's variables in 4 bits.

    Args:
      block: as in `int8_upload`.

    Raises:
      InputError: for another block.
    """
    return quantized_download(4, block)
