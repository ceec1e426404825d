"""A trained model with the ids of its items and users."""

import functools
import os
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import polars as pl

from fedpeft_jax.backbones import Backbone
from fedpeft_jax.core.ragged import Ragged
from fedpeft_jax.core.roles import PRIVATE
from fedpeft_jax.core.typing import PyTree
from fedpeft_jax.experiment.config import RunConfig
from fedpeft_jax.experiment.id_tables import IdTables
from fedpeft_jax.serving.checks import Exclude, check_count, left_out
from fedpeft_jax.serving.export import export_model
from fedpeft_jax.serving.fold_in import (
    EPOCHS,
    FoldedIn,
    make_trainer,
    private_training,
    train_newcomer,
)
from fedpeft_jax.serving.listing import Listing
from fedpeft_jax.serving.names import several
from fedpeft_jax.serving.ranking import Ranking
from fedpeft_jax.serving.vectors import item_vectors, nearest


class TrainedModel:
    """A model that recommends items, by their original ids.

    `load` and `train` return one.

    Args:
      config: the configuration of the run.
      tables: the ids, titles and histories of the run.
      model: the recommender.
      variables: its variables by collection, private ones [U, ...].
      summary: the content of `summary.json`; None if the run has not finished.
      round_: how many rounds the variables were trained for; None if unknown.

    Attributes:
      config: the configuration of the run.
      summary: the content of `summary.json`; None if the run has not finished.
      round: how many rounds the variables were trained for; None if unknown.
      item_ids: int64[I] or str[I], original ids; the row is the item's number.
      user_ids: int64[U] or str[U], original ids; the row is the client's number.
      titles: the title of each item, None where it is unknown.
    """

    def __init__(
        self,
        config: RunConfig,
        tables: IdTables,
        model: Backbone,
        variables: Mapping[str, PyTree],
        summary: dict[str, Any] | None,
        round_: int | None = None,
    ) -> None:
        self.config, self.summary, self.round = config, summary, round_
        self.item_ids, self.user_ids = tables.item_ids, tables.user_ids
        self.titles = tables.titles
        self._tables, self._model = tables, model
        self._variables = jax.tree.map(jnp.asarray, dict(variables))
        self._ranking = Ranking(model, tables.num_items)

    def __repr__(self) -> str:
        name, settings = self._tables.name, self.config.model
        return (
            f"TrainedModel({name!r}: {len(self.user_ids)} users, {len(self.item_ids)} "
            f"items, {settings.backbone}: {settings.full} + {settings.embedding})"
        )

    @functools.cached_property
    def item_embeddings(self) -> np.ndarray:
        """float32[I, D], full and compressed part added, in the order of `item_ids`."""
        return item_vectors(self._model, self._variables)

    @functools.cached_property
    def user_embeddings(self) -> np.ndarray:
        """float32[U, D], in the order of `user_ids`.

        For FedMF and FedPerGNN, the score of an item is its inner product with the
        item's embedding. PFedRec has none, and raises InputError.
        """
        clients = np.arange(self._tables.num_users)
        return self._ranking.vectors(self._variables, *self._histories, clients)

    @property
    def _histories(self) -> tuple[Ragged, np.ndarray]:
        return self._tables.items, self._tables.trains

    def score(self, users: Any = None, items: Any = None) -> np.ndarray:
        """Scores items for users.

        Args:
          users: a user id, or several; None for all users.
          items: an item id, or several; None for all, in the order of `item_ids`.

        Returns:
          float32[number of users, number of items], higher is better.

        Raises:
          InputError: for an unknown id.
        """
        rows = None if items is None else self._listing.items.rows(items)
        clients = self._listing.users.rows(users)
        return self._ranking.scores(self._variables, *self._histories, clients, rows)

    def recommend(
        self, users: Any = None, k: int = 10, *, exclude_history: Exclude = True
    ) -> pl.DataFrame:
        """Recommends the items with the highest scores.

        Args:
          users: a user id, or several; None for all users.
          k: how many items for each user, at least 1.
          exclude_history: True leaves out all items that the user interacted with,
            'train' only those that were trained on, and False none.

        Returns:
          Columns `user`, `rank` (from 1), `item`, `title` and `score`, in the order of
          the users. A user with fewer than `k` other items has fewer rows.

        Raises:
          InputError: for an unknown user, or another value of an argument.
        """
        check_count("k", k)
        clients = self._listing.users.rows(users)
        out = left_out(self._tables.trains, exclude_history)
        histories = self._histories
        best = self._ranking.best(self._variables, *histories, clients, k, out)
        return self._listing.best(clients, best.items, best.scores)

    def similar_items(self, item: Any, k: int = 10) -> pl.DataFrame:
        """Returns the items whose embeddings have the largest cosine to an item's.

        Args:
          item: an item id.
          k: how many items, at least 1.

        Returns:
          Columns `rank` (from 1), `item`, `title` and `score`, the cosine.

        Raises:
          InputError: for an unknown item.
        """
        check_count("k", k)
        rows, cosines = nearest(self.item_embeddings, self._listing.items.row(item), k)
        return self._listing.ranked(rows, np.arange(len(rows)), cosines)

    def history(self, user: Any) -> pl.DataFrame:
        """Returns what a user interacted with, in time order.

        Args:
          user: a user id.

        Returns:
          Columns `item`, `title` and `part`: `train`, or `held_out` for what the model
          was validated or tested on.

        Raises:
          InputError: for an unknown user.
        """
        return self._listing.history(self._listing.users.row(user))

    def fold_in(
        self,
        history: Any,
        k: int = 10,
        *,
        epochs: int = EPOCHS,
        exclude_history: bool = True,
    ) -> FoldedIn:
        """Recommends items to somebody who was no client of the run.

        Private parameters are trained on the history with the run's local settings.
        Everything from the server stays as it is, and nothing is sent.

        Args:
          history: ids of the items that the person interacted with.
          k: how many items, at least 1.
          epochs: passes over the history.
          exclude_history: whether the items of the history are left out.

        Returns:
          The recommendations and the private parameters.

        Raises:
          InputError: for an unknown item, a history that is empty or has all items, or
            another value of an argument.
        """
        check_count("k", k)
        check_count("epochs", epochs)
        rows = np.unique(self._listing.items.rows(several(history)))
        training, train = self._trainer
        number = self._tables.num_users  # the next client's
        new = train_newcomer(
            self.config, training, train, self._variables, rows, number, epochs
        )
        items, trains = Ragged.from_rows([new.items]), np.ones(len(new.items), bool)
        me, out = np.zeros(1, np.int64), np.full(len(trains), exclude_history)
        variables = {**self._variables, PRIVATE: new.private}
        best = self._ranking.best(variables, items, trains, me, k, out)
        listed = self._listing.best(None, best.items, best.scores)
        vector = None
        if self.has_user_embeddings:
            vector = self._ranking.vectors(variables, items, trains, me)[0]
        return FoldedIn(listed, new.private, vector, new.losses)

    @property
    def has_user_embeddings(self) -> bool:
        """Whether the recommender has a vector for each user; PFedRec has none."""
        return hasattr(self._model, "user_embedding") or (
            "user" in self._variables[PRIVATE]
        )

    def export(self, path: str | os.PathLike[str]) -> None:
        """Writes vectors, ids and the score function for use without this library.

        It needs the extra `export`. `docs/using-a-model.md` describes the files.

        Args:
          path: a folder, which is made if it does not exist.

        Raises:
          InputError: if the extra `export` is not installed, or the folder cannot be
            written.
        """
        vectors = {"item_embeddings": self.item_embeddings}
        if self.has_user_embeddings:
            vectors["user_embeddings"] = self.user_embeddings
        export_model(path, self._tables, self._model, self._variables, vectors)

    @functools.cached_property
    def _listing(self) -> Listing:
        return Listing(self._tables)

    @functools.cached_property
    def _trainer(self) -> tuple[Any, Any]:
        training = private_training(self.config, self._model)
        return training, make_trainer(training)
