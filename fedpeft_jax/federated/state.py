"""Initial variables: the server's, every client's own, and what a new phase keeps."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import traverse_util

from fedpeft_jax.backbones.base import Backbone
from fedpeft_jax.core.roles import FROZEN, PRIVATE, ROWS, SENT, SHARED, select
from fedpeft_jax.core.typing import History, Key, PyTree, Variables
from fedpeft_jax.federated.algorithm import Algorithm, RoundState


def init_server(
    model: Backbone, key: Key, fitted: Mapping[str, PyTree] | None = None
) -> dict[str, PyTree]:
    """Returns the variables that the server holds: shared, rows and frozen.

    Args:
      model: the recommender.
      key: draws what is random.
      fitted: values by collection, as `model.fit` returns them, that replace it.

    Raises:
      ValueError: if a fitted value does not match a variable's shape.
    """

    @jax.jit
    def init() -> PyTree:
        variables = model.init(
            key, _one_item(), None, deterministic=True, method="score"
        )
        return select(variables, (SHARED, ROWS, FROZEN))

    flat = traverse_util.flatten_dict(init())
    for path, value in traverse_util.flatten_dict(dict(fitted or {})).items():
        if path not in flat or flat[path].shape != value.shape:
            found = flat[path].shape if path in flat else "no variable"
            raise ValueError(f"fitted {path} {value.shape} meets {found}")
        # A copy: the state that is made of it will be given away.
        flat[path] = jnp.array(value, flat[path].dtype)
    return _with_all_roles(traverse_util.unflatten_dict(flat))


def init_private(
    model: Backbone, key: Key, num_clients: int, server: Variables
) -> PyTree:
    """Returns every client's private parameters, arrays [U, ...].

    Args:
      model: its `private_init` says whether clients start alike.
      key: folded with the client's id where they do not.
      num_clients: U.
      server: the server's variables; of per-item tables one row is enough.
    """
    rows = select(server, (ROWS, FROZEN))
    held = {
        SHARED: server.get(SHARED, {}),
        **jax.tree.map(lambda x: x[:1], rows),
    }

    def init(key: Key) -> PyTree:
        _, variables = model.apply(
            held,
            _one_item(),
            None,
            deterministic=True,
            method="score",
            rngs={"params": key},
            mutable=[PRIVATE, SHARED],
        )
        return variables.get(PRIVATE, {})

    if model.private_init == "common":
        own = jax.jit(init)(key)
        return jax.tree.map(lambda x: jnp.tile(x, (num_clients,) + (1,) * x.ndim), own)
    keys = jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(num_clients))
    return jax.jit(jax.vmap(init))(keys)


def keep_surviving(new: Variables, old: Variables) -> dict[str, Any]:
    """Returns the server's new variables with the values that the old ones have.

    Variables are matched by path and shape, whatever their role: that is how the table
    that the warm-up trained becomes the frozen one.

    Example:
      >>> kept = keep_surviving(
      ...     {"params": {"B": 0}, "frozen": {"full": 1}}, {"rows": {"full": 2}}
      ... )
      >>> kept["params"], kept["frozen"]
      ({'B': 0}, {'full': 2})
    """
    flat = traverse_util.flatten_dict(dict(old))
    values = {path[1:]: value for path, value in flat.items()}

    def choose(path: tuple[Any, ...], value: Any) -> Any:
        kept = values.get(path[1:], value)
        return kept if jnp.shape(kept) == jnp.shape(value) else value

    result = traverse_util.path_aware_map(choose, dict(new))
    return _with_all_roles(dict(result))


def make_state(
    server: Variables,
    private: PyTree,
    algorithm: Algorithm,
    key: Key,
    round_: int = 0,
) -> RoundState:
    """Returns the state before a phase's first round.

    The states of the server optimizers, of the upload pipelines and of the release
    stage start anew. The first call of `run_rounds` donates the state: the arrays of
    `server` and `private` are deleted with it, the key is a copy.
    """
    sent = select(server, SENT)
    own = jax.tree.leaves(private)
    num_clients = len(own[0]) if own else 0
    return RoundState(
        shared=sent[SHARED],
        rows=sent[ROWS],
        private=private,
        upload=jax.tree.map(
            lambda x: jnp.tile(x, (num_clients,) + (1,) * jnp.ndim(x)),
            algorithm.upload.init(sent),
        ),
        aggregator=algorithm.aggregator.init(sent),
        release=algorithm.release.init(sent),
        round=jnp.int32(round_),
        key=key.copy(),
    )


def _one_item() -> History:
    """A history of one item, to initialise a model with."""
    return History(jnp.zeros(1, jnp.int32), jnp.ones(1, bool))


def _with_all_roles(variables: dict[str, Any]) -> dict[str, Any]:
    return select(variables, (SHARED, ROWS, FROZEN))
