"""Stages that send 8 bits for each number, rounded without bias.

Alistarh et al., QSGD: Communication-efficient SGD via gradient quantization and
encoding, NeurIPS 2017.
"""

from fedpeft_jax.federated.pipelines.base import Download, Upload
from fedpeft_jax.federated.pipelines.levels import quantized_download, quantized_upload


def int8_upload(block: str = "column") -> Upload:
    """Returns the stage that sends an update as levels -127..127 and float32 scales.

    Args:
      block: which numbers share a scale: `'column'` for the numbers with the same last
        index, `'row'` for those with the same first index, such as the row of an item,
        or `'tensor'` for a whole array. A row of LoRA has as many bytes as its scale,
        so that the default is one scale per column.

    Raises:
      InputError: for another block.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from fedpeft_jax.federated.updates import ClientUpdate
      >>> update = ClientUpdate(jnp.array([0.5, -1.0]), {}, None, 1.0, 0.5)
      >>> payload, _, _ = int8_upload().encode(update, (), jax.random.key(0))
      >>> payload.shared.levels.dtype.name, payload.shared.levels[1]
      ('int8', Array(-127, dtype=int8))
    """
    return quantized_upload(8, block)


def int8_download(block: str = "column") -> Download:
    """Returns the stage that sends the server's variables in 8 bits.

    Args:
      block: as in `int8_upload`.

    Raises:
      InputError: for another block.
    """
    return quantized_download(8, block)
