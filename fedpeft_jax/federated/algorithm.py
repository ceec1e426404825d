"""The parts of a round: the algorithm, the state that it changes, and its report."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from fedpeft_jax.core.roles import ROWS, SHARED
from fedpeft_jax.core.typing import Array, Key, PyTree
from fedpeft_jax.federated.aggregators import Aggregator
from fedpeft_jax.federated.canaries import Canaries
from fedpeft_jax.federated.client import LocalTraining
from fedpeft_jax.federated.faults import Faults
from fedpeft_jax.federated.pipelines import (
    Download,
    Upload,
    identity_download,
    identity_upload,
)
from fedpeft_jax.federated.pipelines.checks import check_upload
from fedpeft_jax.federated.release import (
    Cohort,
    Figures,
    Release,
    identity_release,
    merge_figures,
)
from fedpeft_jax.federated.updates import dense_update


class Algorithm(NamedTuple):
    """Everything that decides what happens in a round.

    Attributes:
      training: how a client trains.
      aggregator: how the server combines updates.
      upload: how a client sends its update.
      download: how the server sends its variables.
      release: the stage that replaces the sums before the server uses them.
      faults: the faults of clients that are simulated or tolerated.
      varying_cohorts: whether the number of clients differs between rounds, so that a
        cohort may have empty places, or none but these.
      canaries: the clients that an audit added; None for none.
    """

    training: LocalTraining
    aggregator: Aggregator
    upload: Upload = identity_upload()
    download: Download = identity_download()
    release: Release = identity_release()
    faults: Faults = Faults()
    varying_cohorts: bool = False
    canaries: Canaries | None = None


class RoundState(NamedTuple):
    """Everything that a round changes, as one pytree.

    Attributes:
      shared: the shared parameters.
      rows: the trained per-item tables [I, ...].
      private: every client's private parameters [U, ...].
      upload: the state of every client's upload pipeline [U, ...].
      aggregator: the aggregator's and the server optimizer's state.
      release: the release stage's state.
      round: int32[], index of the next round.
      key: the run's key for its rounds.
    """

    shared: PyTree
    rows: PyTree
    private: PyTree
    upload: PyTree
    aggregator: Any
    release: Any
    round: Array
    key: Key


class RoundReport(NamedTuple):
    """The figures of a chunk of rounds.

    Attributes:
      losses: float32[T], the released training loss of each round, which is the
        weighted mean over the cohort; zero for rounds that did not run, and NaN for
        rounds without an answer and where the release stage is private.
      figures: float32[T] by name, what the pipelines, the release stage and the faults
        report.
      finite: bool[], False if the last round that ran produced a non-finite update.
        That update was not applied, so the state is the one before the round.
    """

    losses: Array
    figures: dict[str, Array]
    finite: Array


def figure_names(algorithm: Algorithm, state: RoundState) -> list[str]:
    """Returns the names of the figures that stages and faults report.

    Args:
      algorithm: everything that decides what happens in a round.
      state: the state before a round.

    Returns:
      The names in alphabetical order.

    Raises:
      InputError: if two stages report a figure of the same name, or the upload
        pipeline does not keep its contract.
    """
    server = {SHARED: state.shared, ROWS: state.rows}
    num_items = algorithm.training.sampler.num_items
    _, sent = check_upload(algorithm.upload, server, num_items)

    def released(key: Key) -> tuple[Figures, Figures]:
        update = dense_update(server, num_items)
        update, bounded = algorithm.release.bound(update, state.release)
        sums = algorithm.aggregator.map(update, key)
        cohort = Cohort(jnp.int32(1), algorithm.training.uniform_weights, bounded)
        found = algorithm.release.apply(sums, state.release, cohort, key)[2]
        return dict(bounded), dict(found)

    found = merge_figures(sent, {})
    for figures in jax.eval_shape(released, state.key):
        found = merge_figures(found, figures)
    faults = {name: jnp.float32(0) for name in algorithm.faults.figures}
    return sorted(merge_figures(found, faults))
