"""Shadow clients: the server trains clients of its own on guessed items.

They train as real clients do, with the local training of the run, from the variables
that the victim received. Their private parameters and their items are guesses.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fedpeft_jax.core.keys import RunPurpose, run_key
from fedpeft_jax.core.roles import (
    FROZEN,
    ROWS,
    SHARED,
    gather_rows,
    scatter_add_rows,
)
from fedpeft_jax.core.typing import Array, Key, PyTree
from fedpeft_jax.experiment.server_view import ServerView
from fedpeft_jax.federated import (
    Algorithm,
    ClientData,
    init_private,
    train_client,
)
from fedpeft_jax.privacy.attacks import oriented, shadow_votes

_SHADOWS = 8
_REFINEMENTS = 2

Shadow = Callable[[PyTree, np.ndarray, np.ndarray, np.ndarray], np.ndarray]
"""`(server, moves, white, candidates bool[I]) -> scores float64[I]`."""


def make_shadow(algorithm: Algorithm, view: ServerView, seed: int) -> Shadow:
    """Returns the attack with shadow clients.

    Every shadow starts from private parameters of its own, and from a random half of
    the candidates as positives. After each vote the shadows go on with guesses that
    follow the vote, up to a few that change at random.

    Args:
      algorithm: everything that decides what happens in a round.
      view: what the server computes from an update.
      seed: seed of the guesses.
    """
    training, shadows = algorithm.training, _SHADOWS
    num_items, ratio = training.sampler.num_items, training.sampler.num_negatives

    def one(
        server: PyTree, private: PyTree, data: ClientData, key: Key
    ) -> tuple[Array, PyTree]:
        received = {
            SHARED: server[SHARED],
            ROWS: gather_rows(server[ROWS], data.item_ids),
        }
        frozen = gather_rows(server[FROZEN], data.item_ids)
        update, kept = train_client(training, received, private, frozen, data, key)
        zeros = jax.tree.map(jnp.zeros_like, server[ROWS])
        rows = scatter_add_rows(zeros, data.item_ids, update.rows)
        return view.moves(server, update.shared, rows), kept

    @jax.jit
    def first(server: PyTree, key: Key) -> PyTree:
        return init_private(training.model, key, shadows, server)

    @jax.jit
    def train(
        server: PyTree, private: PyTree, data: ClientData, key: Key
    ) -> tuple[Array, PyTree]:
        keys = jax.random.split(key, shadows)
        return jax.vmap(one, (None, 0, 0, 0))(server, private, data, keys)

    def attack(
        server: PyTree, moves: np.ndarray, white: np.ndarray, candidates: np.ndarray
    ) -> np.ndarray:
        generator = np.random.default_rng([seed, int(candidates.sum())])
        key = run_key(seed, RunPurpose.PRIVATE)
        items = np.flatnonzero(candidates)
        num_positives = len(items) // (1 + ratio)
        known = {role: server[role] for role in (SHARED, ROWS, FROZEN)}
        scores: Any = np.zeros(num_items)
        if not num_positives:
            return np.zeros(num_items)
        private = first(known, key)
        for step in range(1 + _REFINEMENTS):
            # Guesses that were voted for, with noise that lets shadows differ.
            spread = scores[items].std() if step else 1.0
            noise = generator.normal(size=(shadows, len(items))) * (spread or 1.0)
            order = np.argsort(
                -(scores[items] + (0.5 if step else 1.0) * noise), axis=1
            )
            guessed = items[order]
            data = _client_data(guessed, num_positives, ratio, num_items)
            step_key = jax.random.fold_in(key, step)
            found, private = train(known, private, data, step_key)
            labels = np.zeros((shadows, num_items), np.int8)
            rows = np.arange(shadows)[:, None]
            used = num_positives * (1 + ratio)
            labels[rows, guessed[:, num_positives:used]] = -1
            labels[rows, guessed[:, :num_positives]] = 1
            votes = shadow_votes(moves, np.asarray(found), labels)
            scores = np.mean([oriented(vote, white) for vote in votes], axis=0)
        return np.where(candidates, scores, scores[items].min())

    return attack


def _client_data(
    guessed: np.ndarray, num_positives: int, ratio: int, num_items: int
) -> ClientData:
    """Returns the pairs of shadows whose first items are the positives.

    Args:
      guessed: int[S, n], distinct items.
      num_positives: the number of positives of each shadow.
      ratio: M, negatives per positive.
      num_items: I, which stands for padding.
    """
    shadows = len(guessed)
    # Few capacities, so that few programs are compiled.
    bits = max(num_positives - 1, 0).bit_length()
    capacity = 1 << (bits + bits % 2)
    item_ids = np.full((shadows, capacity * (1 + ratio)), num_items, np.int32)
    item_ids[:, :num_positives] = guessed[:, :num_positives]
    used = num_positives * (1 + ratio)
    item_ids[:, capacity : capacity + used - num_positives] = guessed[
        :, num_positives:used
    ]
    slots = np.arange(capacity * (1 + ratio), dtype=np.int32)

    def every(x: np.ndarray) -> Array:
        return jnp.asarray(np.broadcast_to(x, (shadows, *x.shape)))

    return ClientData(
        item_ids=jnp.asarray(item_ids),
        positives=every(slots[:capacity]),
        negatives=every(slots[capacity:].reshape(capacity, ratio)),
        mask=every(np.arange(capacity) < num_positives),
    )
