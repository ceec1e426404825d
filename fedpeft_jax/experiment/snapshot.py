"""Turns the state of a run into nested dictionaries of NumPy arrays, and back.

A checkpoint holds these dictionaries. They have no Python types, so the structure of
the state comes from the configuration: `unpack` fills a state that the run made anew.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fedpeft_jax.core.errors import InputError
from fedpeft_jax.core.roles import FROZEN, PRIVATE, ROWS, SHARED
from fedpeft_jax.core.typing import PyTree
from fedpeft_jax.experiment.state import Best, RunState, variables_of

# One entry for every phase of the run. A run that grows has more phases than before.
_BY_PHASE = "phase_"


def pack(state: RunState) -> dict[str, Any]:
    """Returns copies of all arrays of a state, as nested dictionaries.

    Args:
      state: the state of a run, whose arrays may be donated afterwards.
    """
    packed: dict[str, Any] = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(state):
        *parents, last = _names(path)
        place = packed
        for name in parents:
            place = place.setdefault(name, {})
        place[last] = np.array(jax.random.key_data(leaf) if _is_key(leaf) else leaf)
    return packed


def unpack(packed: PyTree, like: RunState) -> RunState:
    """Returns a state with the arrays of a checkpoint.

    Args:
      packed: the result of `pack`.
      like: a state of the same phase of the same configuration.

    Raises:
      InputError: if an array is missing, or has another shape or type.
    """
    if "variables" in packed.get("best", {}):
        like = like._replace(best=Best(*like.best[:2], variables_of(like)))

    def fill(path: tuple[Any, ...], leaf: Any) -> Any:
        names = _names(path)
        found = packed
        for name in names:
            found = found.get(name) if isinstance(found, dict) else None
        if not isinstance(found, np.ndarray | np.generic):
            raise _differs(names, "is missing")
        found = np.asarray(found)
        if _is_key(leaf):
            data = jax.random.key_data(leaf)
            _check(names, found, data)
            return jax.random.wrap_key_data(
                jnp.array(found), impl=jax.random.key_impl(leaf)
            )
        if names[0].startswith(_BY_PHASE) and found.ndim == 1:
            found = np.pad(found, (0, max(len(leaf) - len(found), 0)))
        _check(names, found, leaf)
        if isinstance(leaf, np.generic):
            return found[()]
        # The device gets its own copy, because the next round is given the array.
        return jnp.array(found) if isinstance(leaf, jax.Array) else found.copy()

    return jax.tree_util.tree_map_with_path(fill, like)


def packed_variables(packed: PyTree) -> dict[str, PyTree]:
    """Returns the model's variables in a checkpoint, by collection.

    Args:
      packed: the result of `pack`.
    """
    rounds = packed.get("rounds", {})
    return {
        SHARED: rounds.get("shared", {}),
        ROWS: rounds.get("rows", {}),
        FROZEN: packed.get("frozen", {}),
        PRIVATE: rounds.get("private", {}),
    }


def _names(path: tuple[Any, ...]) -> list[str]:
    return [jax.tree_util.keystr((part,), simple=True) for part in path]


def _is_key(leaf: Any) -> bool:
    return isinstance(leaf, jax.Array) and jnp.issubdtype(
        leaf.dtype, jax.dtypes.prng_key
    )


def _check(names: list[str], found: np.ndarray, leaf: Any) -> None:
    shape, dtype = np.shape(leaf), np.asarray(leaf).dtype
    if found.shape != shape or found.dtype != dtype:
        raise _differs(
            names, f"is {found.dtype}{list(found.shape)}, not {dtype}{list(shape)}"
        )


def _differs(names: list[str], how: str) -> InputError:
    return InputError(
        f"the checkpoint does not fit the run: {'/'.join(names)} {how}: set `out` to a "
        "new folder"
    )
