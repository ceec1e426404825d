"""Puts a mechanism of differential privacy into the rounds of a run.

Central model: the server bounds every decoded update, adds the noise to the sum, and
divides by the expected size of a cohort, because the size itself is not released.
Local model: every client bounds its update and adds its own noise to the dense update
before anything else happens to it. In both models the rows that a client did not touch
are noised as those that it touched, weights are 1, and no loss is reported.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from fedpeft_jax.core.typing import Array, Key, PyTree
from fedpeft_jax.experiment.privacy_plan import PrivacyPlan
from fedpeft_jax.federated import (
    Algorithm,
    ClientUpdate,
    Cohort,
    Release,
    Sum,
    Sums,
    Upload,
    chain_uploads,
)
from fedpeft_jax.federated.release import Figures
from fedpeft_jax.privacy.calibration import update_noise
from fedpeft_jax.privacy.mechanisms import Mechanism, bound, noise, norm_of

# The noise on the count of an adaptive clip: Andrew et al. (section 3) take the first.
# With the second, the count takes at most 1 % of the budget of Gaussian noise.
_SHARE_OF_COHORT, _OF_MULTIPLIER = 1 / 20, 5


class Noise(NamedTuple):
    """The state of a private release, so that runs with other noise share a program.

    Attributes:
      clip: C, float32[].
      multiplier: standard deviation (Laplace: scale) of the noise over C, float32[].
      of_count: that of the noise on the number of clients below the clip, float32[]; 0
        if the clip is fixed.
    """

    clip: Array
    multiplier: Array
    of_count: Array


def with_privacy(algorithm: Algorithm, plan: PrivacyPlan) -> Algorithm:
    """Returns the algorithm with the mechanism of a run in its rounds.

    Args:
      algorithm: everything that decides what happens in a round.
      plan: the privacy of the run.
    """
    if plan.accountant.model == "central":
        return algorithm._replace(release=central_release(plan))
    items = algorithm.training.sampler.num_items
    stages = local_upload(plan, items), algorithm.upload
    return algorithm._replace(
        upload=chain_uploads(*stages) if plan.each_client else stages[0],
        release=local_release(plan),
    )


def central_release(plan: PrivacyPlan) -> Release:
    """Returns the stage that bounds the clients and noises the sums.

    It reports `clipped`, the share of the clients whose update was scaled down,
    `update_norm`, the mean norm before, `signal_to_noise`, the norm of the sum divided
    by that of the noise, and `clip` if the clip is adaptive. These figures are
    diagnostics of the simulation and are not released.

    Args:
      plan: the privacy of the run.
    """
    mechanism, sampling = plan.mechanism, plan.accountant.sampling
    z, adaptive = mechanism.noise_multiplier, mechanism.adaptive
    assert z is not None
    expected = sampling.expected_size
    count_noise, z_update = 0.0, z
    if adaptive is not None and z:
        least = max(_SHARE_OF_COHORT * expected, _OF_MULTIPLIER * z)
        count_noise = adaptive.count_noise or least
        z_update = update_noise(mechanism.name, z, count_noise)

    def init(server: PyTree) -> Noise:
        del server
        values = mechanism.clip, z_update, count_noise
        return Noise(*map(jnp.float32, values))

    def bound_client(
        update: ClientUpdate, state: Noise
    ) -> tuple[ClientUpdate, Figures]:
        return _bounded(mechanism, update, state.clip)

    def apply(
        sums: Sums, state: Noise, cohort: Cohort, key: Key
    ) -> tuple[Sums, Noise, Figures]:
        key, count_key = jax.random.split(key)
        figures: dict[str, Array] = {}
        clip = state.clip
        if adaptive is not None:
            # Each client adds 1/2 or -1/2, so that one client changes the sum by 1/2.
            centred = cohort.size / 2 - cohort.bounded["clipped"]
            drawn = noise(mechanism, count_key, centred, state.of_count)
            share = (centred + drawn) / expected + 0.5
            step = adaptive.rate * (share - adaptive.quantile)
            state = state._replace(clip=clip * jnp.exp(-step))
            figures["clip"] = clip
        if not z:
            return sums, state, figures
        sums, found = _noised(mechanism, sums, key, state.multiplier * clip, 1)
        weight = jnp.float32(expected)
        shared = sums.shared._replace(weight=weight)
        return sums._replace(shared=shared), state, {**figures, **found}

    return Release(init, apply, bound_client, private=z > 0)


def local_release(plan: PrivacyPlan) -> Release:
    """Returns the stage of the local model on the server.

    If nothing follows the noise on the clients, their noises add up, and the stage
    draws the sum of the noises of all clients that answered, which has the same
    distribution.

    Args:
      plan: the privacy of the run.
    """
    mechanism = plan.mechanism
    z = mechanism.noise_multiplier
    assert z is not None

    def init(server: PyTree) -> Noise:
        del server
        return Noise(*map(jnp.float32, (mechanism.clip, z, 0.0)))

    def apply(
        sums: Sums, state: Noise, cohort: Cohort, key: Key
    ) -> tuple[Sums, Noise, Figures]:
        if plan.each_client or not z:
            return sums, state, {}
        scale = state.multiplier * state.clip
        sums, found = _noised(mechanism, sums, key, scale, cohort.size)
        return sums, state, found

    return Release(init, apply, private=z > 0)


def local_upload(plan: PrivacyPlan, num_items: int) -> Upload:
    """Returns the stage with which a client bounds its update, and may noise it.

    A client that draws its own noise sends the rows of all items, which take I / K
    times the memory of those that it touched.

    Args:
      plan: the privacy of the run.
      num_items: I, the number of items.
    """
    mechanism = plan.mechanism
    z = mechanism.noise_multiplier
    assert z is not None

    def encode(
        update: ClientUpdate, state: PyTree, key: Key
    ) -> tuple[ClientUpdate, PyTree, Figures]:
        update, figures = _bounded(mechanism, update, jnp.float32(mechanism.clip))
        if z:
            update = update._replace(loss=jnp.zeros_like(update.loss))
        if plan.each_client:
            ids = update.item_ids
            rows = jax.tree.map(
                lambda x: (
                    jnp.zeros((num_items, *x.shape[1:])).at[ids].add(x, mode="drop")
                ),
                update.rows,
            )
            exact = update.shared, rows
            drawn = noise(mechanism, key, exact, z * mechanism.clip)
            shared, rows = jax.tree.map(jnp.add, exact, drawn)
            everything = jnp.arange(num_items, dtype=jnp.int32)
            update = update._replace(shared=shared, rows=rows, item_ids=everything)
        return update, state, figures

    return Upload(lambda received: (), encode, lambda payload: payload)


def _bounded(
    mechanism: Mechanism, update: ClientUpdate, clip: Array
) -> tuple[ClientUpdate, Figures]:
    (shared, rows), norm = bound(mechanism, (update.shared, update.rows), clip)
    figures = {"clipped": (norm > clip).astype(jnp.float32), "update_norm": norm}
    return update._replace(shared=shared, rows=rows), figures


def _noised(
    mechanism: Mechanism,
    sums: Sums,
    key: Key,
    scale: Array | float,
    copies: Array | int,
) -> tuple[Sums, Figures]:
    exact = sums.shared.value, sums.rows.value
    drawn = noise(mechanism, key, exact, scale, copies)
    shared, rows = jax.tree.map(jnp.add, exact, drawn)
    size = norm_of(mechanism, drawn)
    ratio = norm_of(mechanism, exact) / jnp.where(size > 0, size, 1.0)
    return (
        Sums(
            shared=sums.shared._replace(value=shared),
            rows=sums.rows._replace(value=rows),
            loss=Sum(jnp.zeros_like(sums.loss.value), sums.loss.weight),
        ),
        {"signal_to_noise": ratio},
    )
