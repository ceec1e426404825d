"""Initial variables of the server and the clients, and what a new phase keeps."""

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
    """Returns the initial variables of the server: shared, rows and frozen.

    Args:
      model: the recommender.
      key: random key of the initial values.
      fitted: values by collection, as `fit_model` returns them, that replace random
        initial values.

    Returns:
      The variables by collection; a collection without variables is an empty tree.

    Raises:
      ValueError: if a fitted value does not match a variable's shape.

    Example:
      >>> from fedpeft_jax.backbones import FedMF
      >>> from fedpeft_jax.embeddings import ItemEmbedding
      >>> model = FedMF(item_embedding=ItemEmbedding(num_items=5, features=2))
      >>> server = init_server(model, jax.random.key(0))
      >>> jax.tree.map(jnp.shape, server["rows"])
      {'item_embedding': {'full': (5, 2)}}
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
            raise ValueError(
                f"fitted {path} has shape {value.shape}, but the model has {found}"
            )
        # The value is copied, because the state that holds it will be donated.
        flat[path] = jnp.array(value, flat[path].dtype)
    return _with_all_roles(traverse_util.unflatten_dict(flat))


def init_private(
    model: Backbone, key: Key, num_clients: int, server: Variables
) -> PyTree:
    """Returns the initial private parameters of all clients, arrays [U, ...].

    Args:
      model: the recommender; its `private_init` decides whether all clients start with
        the same values.
      key: random key of the initial values, folded with the client's id if clients
        start with different values.
      num_clients: U, the number of clients.
      server: the server's variables; one row of each per-item table is enough.

    Returns:
      The private parameters, a tree of arrays [U, ...].

    Example:
      >>> from fedpeft_jax.backbones import FedMF
      >>> from fedpeft_jax.embeddings import ItemEmbedding
      >>> model = FedMF(item_embedding=ItemEmbedding(num_items=5, features=2))
      >>> server = init_server(model, jax.random.key(0))
      >>> jax.tree.map(jnp.shape, init_private(model, jax.random.key(1), 3, server))
      {'user': (3, 2)}
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
    """Returns the server's new variables with the values of the old ones that survive.

    A variable survives if it has the same path and shape in both, whatever its role. In
    this way the table that the warm-up trained becomes the frozen table.

    Args:
      new: the variables of the phase that begins, by collection.
      old: the variables of the phase that ends, by collection.

    Returns:
      The server's variables by collection.

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
    *,
    num_clients: int,
    round_: int = 0,
) -> RoundState:
    """Returns the state before a phase's first round.

    The states of the server optimizers, of the upload pipelines and of the release
    stage start anew. The first call of `run_rounds` donates the state, which deletes
    the arrays of `server` and `private`; the key is copied.

    Args:
      server: the server's variables by collection.
      private: the private parameters of all clients, arrays [U, ...].
      algorithm: everything that decides what happens in a round.
      key: the run's key for its rounds.
      num_clients: U, the number of clients.
      round_: index of the phase's first round.
    """
    sent = select(server, SENT)
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
    """Returns a history of one item, to initialise a model with."""
    return History(jnp.zeros(1, jnp.int32), jnp.ones(1, bool))


def _with_all_roles(variables: dict[str, Any]) -> dict[str, Any]:
    return select(variables, (SHARED, ROWS, FROZEN))
