"""Trains the private parameters of somebody who was no client of the run.

The person's device would do this: it receives the server's variables, and trains its
own parameters (a user vector, or PFedRec's score function) on its own history. It sends
nothing, and what the server holds does not change.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
import optax
import polars as pl

from fedpeft_jax.backbones import Backbone
from fedpeft_jax.core.errors import InputError
from fedpeft_jax.core.keys import RunPurpose, client_key, run_key
from fedpeft_jax.core.ragged import Ragged
from fedpeft_jax.core.roles import FROZEN, ROWS, SHARED, gather_rows
from fedpeft_jax.core.typing import Array, Key, PyTree
from fedpeft_jax.experiment.build import make_training
from fedpeft_jax.experiment.config import RunConfig
from fedpeft_jax.experiment.plugins import factory_of
from fedpeft_jax.federated import (
    ClientStore,
    LocalTraining,
    by_role,
    init_private,
)
from fedpeft_jax.federated.client import train_client

Trainer: TypeAlias = Callable[..., tuple[Any, Array]]

EPOCHS = 200
"""Local epochs by default. A client of a default run trains for as many in all."""


class FoldedIn(NamedTuple):
    """The result of `TrainedModel.fold_in`.

    Attributes:
      recommendations: the best items, with columns `rank`, `item`, `title`, `score`.
      private: the trained private parameters, arrays [1, ...].
      vector: float32[D], the user vector; None for a recommender without one.
      losses: float32[P], the training loss of each participation.
    """

    recommendations: pl.DataFrame
    private: PyTree
    vector: np.ndarray | None
    losses: np.ndarray


@dataclasses.dataclass(frozen=True, eq=False)
class Newcomer:
    """Private parameters that were trained on one history.

    Attributes:
      private: the parameters, arrays [1, ...].
      items: int32[n], the items of the history, ascending.
      losses: float32[P], the training loss of each participation.
    """

    private: PyTree
    items: np.ndarray
    losses: np.ndarray


def private_training(config: RunConfig, model: Backbone) -> LocalTraining:
    """Returns the run's local training, which changes private parameters only.

    Args:
      config: the configuration of the run.
      model: the recommender.
    """
    private = factory_of("private_optimizer", config.training.private_optimizer)()
    fixed = optax.set_to_zero()
    optimizer = by_role(fixed, fixed, private)
    return make_training(config.training, model)._replace(optimizer=optimizer)


def train_newcomer(
    config: RunConfig,
    training: LocalTraining,
    train: Trainer,
    variables: Mapping[str, PyTree],
    items: np.ndarray,
    newcomer: int,
    epochs: int,
) -> Newcomer:
    """Trains the private parameters of one person, in the run's own way.

    Every participation draws new negatives and starts the optimizer anew, as in the
    rounds of the run.

    Args:
      config: the configuration of the run.
      training: the result of `private_training`.
      train: the result of `make_trainer`.
      variables: the server's variables by collection.
      items: int[n], distinct items of the person's history.
      newcomer: a number that is no client's, from which random keys are derived.
      epochs: local epochs in all.

    Raises:
      InputError: if the history is empty, or has all items.
    """
    most = min(config.training.negative_slots or training.sampler.num_items,
               training.sampler.num_items)  # fmt: skip
    if not len(items):
        raise InputError("the history is empty: name at least one item")
    if len(items) >= most:
        raise InputError(
            f"the history has {len(items)} of {most} items, which leaves no item to "
            "compare them with: use a shorter history"
        )
    items = np.sort(items).astype(np.int32)
    capacity = 1 << max(len(items) - 1, 3).bit_length()
    padded = np.pad(items, (0, capacity - len(items)))
    offsets = jnp.array([0, len(items)], jnp.int32)
    store = ClientStore(Ragged(jnp.asarray(padded), offsets))
    # A common initial value does not depend on the client; another one has a key of
    # its own for each client.
    key = run_key(config.run.seed, RunPurpose.PRIVATE)
    if training.model.private_init != "common":
        key = jax.random.fold_in(key, newcomer)
    server = {role: variables[role] for role in (SHARED, ROWS, FROZEN)}
    participations = -(-epochs // config.training.local_epochs)
    rounds_key = run_key(config.run.seed, RunPurpose.ROUNDS)
    private, losses = train(
        server,
        store,
        key,
        jax.random.fold_in(rounds_key, newcomer),
        capacity,
        participations,
    )
    own = jax.tree.map(lambda x: x[None], private)
    return Newcomer(own, items, np.asarray(losses))


def make_trainer(training: LocalTraining) -> Trainer:
    """Returns the compiled participations of one person, one after the other.

    Args:
      training: the result of `private_training`.
    """

    @functools.partial(jax.jit, static_argnames=("capacity", "participations"))
    def train(
        server: Mapping[str, PyTree],
        store: ClientStore,
        init_key: Key,
        key: Key,
        capacity: int,
        participations: int,
    ) -> tuple[PyTree, Array]:
        def participate(private: PyTree, round_: Array) -> tuple[PyTree, Array]:
            me = jnp.int32(0)
            data = training.sampler.draw(key, round_, me, store, capacity)
            rows = gather_rows(server[ROWS], data.item_ids)
            update, private = train_client(
                training,
                {SHARED: server[SHARED], ROWS: rows},
                private,
                gather_rows(server[FROZEN], data.item_ids),
                data,
                client_key(key, round_, me),
            )
            return private, update.loss

        start = init_private(training.model, init_key, 1, server)
        own = jax.tree.map(lambda x: x[0], start)
        return jax.lax.scan(participate, own, jnp.arange(participations))

    return train
