"""The dense network of the autoencoders."""

from collections.abc import Callable, Sequence

import flax.linen as nn

from fedpeft_jax.core.typing import Array


class MLP(nn.Module):
    """A stack of dense layers with an activation between them.

    ``h_0 = x``, ``h_l = activation(W_l h_(l-1) + b_l)``; the last layer stays linear
    unless ``activate_final``.

    Attributes:
      sizes: width of each layer; the last is the output's width. If empty, the module
        returns its input.
      activation: elementwise function float32[...] -> float32[...].
      activate_final: whether the last layer has the activation too.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> model = MLP(sizes=(8, 3))
      >>> variables = model.init(jax.random.key(0), jnp.zeros((5, 4)))
      >>> model.apply(variables, jnp.zeros((5, 4))).shape
      (5, 3)
      >>> sorted(variables["params"])
      ['Dense_0', 'Dense_1']
    """

    sizes: Sequence[int]
    activation: Callable[[Array], Array] = nn.relu
    activate_final: bool = False

    @nn.compact
    def __call__(self, inputs: Array) -> Array:
        """Applies the layers to the last axis.

        Args:
          inputs: float32[..., F].

        Returns:
          float32[..., sizes[-1]].
        """
        outputs = inputs
        for layer, size in enumerate(self.sizes):
            outputs = nn.Dense(size)(outputs)
            if self.activate_final or layer + 1 < len(self.sizes):
                outputs = self.activation(outputs)
        return outputs
