"""Stages that send bfloat16: half the bytes, float32's range, 8 bits of precision.

Kalamkar et al., A study of BFLOAT16 for deep learning training, arXiv 1905.12322.
"""

import jax
import jax.numpy as jnp

from fedpeft_jax.core.typing import PyTree
from fedpeft_jax.federated.pipelines.base import Download, Upload
from fedpeft_jax.federated.pipelines.payloads import Quantized, check_order


def bfloat16_upload() -> Upload:
    """Returns the stage that sends an update in bfloat16, rounded to nearest.

    Example:
      >>> from fedpeft_jax.federated.updates import ClientUpdate
      >>> update = ClientUpdate(jnp.ones(2), {}, None, 1.0, 0.5)
      >>> stage = bfloat16_upload()
      >>> payload, _, _ = stage.encode(update, (), None)
      >>> payload.shared.dtype.name, stage.decode(payload).shared.dtype.name
      ('bfloat16', 'float32')
    """
    return Upload(
        init=lambda received: (),
        encode=lambda update, state, key: (
            update._replace(shared=_narrow(update.shared), rows=_narrow(update.rows)),
            state,
            {},
        ),
        decode=lambda payload: payload._replace(
            shared=_widen(payload.shared), rows=_widen(payload.rows)
        ),
    )


def bfloat16_download() -> Download:
    """Returns the stage that sends the server's variables in bfloat16.

    Values are rounded to nearest.

    Example:
      >>> payload = bfloat16_download().encode({"params": jnp.ones(2)}, None)
      >>> payload["params"].dtype.name
      'bfloat16'
    """
    return Download(lambda server, key: _narrow(server), _widen)


def _narrow(tree: PyTree) -> PyTree:
    check_order("bfloat16", tree, (Quantized,))
    return _cast(tree, jnp.float32, jnp.bfloat16)


def _widen(tree: PyTree) -> PyTree:
    return _cast(tree, jnp.bfloat16, jnp.float32)


def _cast(tree: PyTree, old: type, new: type) -> PyTree:
    """Returns the tree with its arrays of type `old` cast to `new`."""
    return jax.tree.map(lambda x: x.astype(new) if x.dtype == old else x, tree)
