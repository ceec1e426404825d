"""Phases that a caller adds or changes, and what a run does with them."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from fedpeft_jax.core.errors import InputError
from fedpeft_jax.experiment import (
    configure,
    make_phases,
    run,
)
from fedpeft_jax.federated import (
    published_negatives,
    with_server_optimizer,
)
from fedpeft_jax.federated.aggregators import mean
from tests import toys
from tests.helpers import Counted
from tests.small_runs import (
    NUM_ITEMS,
    NUM_USERS,
    SETTINGS,
    TRAINED,
    finish,
    finished,
    small_runs,
)


@pytest.fixture(scope="module", autouse=True)
def _small():
    with small_runs():
        yield


def test_a_new_phase_is_one_function():
    """Halfway through the main phase the users start anew; nothing is compiled."""

    def forget_users(state):
        private = jax.tree.map(jnp.zeros_like, state.rounds.private)
        return state._replace(rounds=state.rounds._replace(private=private))

    losses = Counted()

    def phases(config, prepared):
        *before, main = make_phases(config, prepared)
        counted = main.algorithm.training._replace(loss=losses)
        main = main._replace(algorithm=main.algorithm._replace(training=counted))
        again = main._replace(enter=forget_users)
        return [*before, main._replace(stop=4), again]

    result = run(configure(**SETTINGS), phases=phases)
    first = losses.traces
    assert result.state.phase_rounds.tolist() == [2, 2, 2]
    # A user that took no part after round 4 is still where the phase put it.
    idle = result.state.last_round < 4
    assert idle.any() and not np.any(
        np.asarray(result.variables["private"]["user"])[idle]
    )
    found = result.summary["communication"]["phases"]
    # Two phases in a row that send the same are one entry.
    assert [phase["name"] for phase in found] == ["warm_up", "peft"]
    assert [phase["rounds"] for phase in found] == [2, 4]
    # The repeated phase has the model and the algorithm of the one before it.
    losses.traces = 0
    run(configure(**{**SETTINGS, "rounds": 4}), phases=lambda c, p: phases(c, p)[:2])
    assert losses.traces == first


def test_a_phase_may_change_the_algorithm_and_its_states_start_anew():
    """Stages with state and another server optimizer, after the warm-up."""

    def phases(config, prepared):
        warm_up, main = make_phases(config, prepared)
        changed = main.algorithm._replace(
            upload=toys.error_feedback(),
            release=toys.noisy_sums(0.0),
            aggregator=with_server_optimizer(mean(), optax.adam(0.1)),
        )
        middle = main._replace(stop=4)
        return [warm_up, middle, main._replace(algorithm=changed, enter=lambda s: s)]

    result = run(configure(**SETTINGS), phases=phases)
    assert int(result.state.rounds.release) == 2  # rounds of the last phase
    assert result.state.phase_rounds.tolist() == [2, 2, 2]
    memory = np.asarray(jax.tree.leaves(result.state.rounds.upload)[0])
    assert memory.shape[0] == NUM_USERS and memory.any()


def test_the_leak_detector_reads_the_sampler_of_the_phases():
    """A sampler that a caller puts into the phases, and no setting, leaks."""

    def phases(config, prepared):
        sampler = published_negatives(NUM_ITEMS, exclude_held_out=True)
        return [
            phase._replace(
                algorithm=phase.algorithm._replace(
                    training=phase.algorithm.training._replace(sampler=sampler)
                )
            )
            for phase in make_phases(config, prepared)
        ]

    given = run(configure(**TRAINED, train_negatives="unseen")).summary
    found = run(configure(**TRAINED), phases=phases).summary
    assert found["metrics"] == given["metrics"]
    assert found["baselines"]["log_odds"] == given["baselines"]["log_odds"]


@pytest.mark.parametrize("stops", [(), (2, 2), (4, 3, 6), (2, 4), (2, 8)])
def test_phases_must_ascend_and_fill_the_run(stops):
    def phases(config, prepared):
        main = make_phases(config, prepared)[-1]
        return [main._replace(stop=stop) for stop in stops]

    with pytest.raises(InputError, match="let the stops ascend, and the last one be"):
        run(configure(**SETTINGS), phases=phases)


def test_pipelines_change_the_bytes_and_are_reported(tmp_path):
    plain = finished()
    stages = {"upload": "clip_by_norm(max_norm=0.05), bfloat16", "download": "bfloat16"}
    coded = finish(tmp_path / "coded", **stages)
    whole, half = (
        r.summary["communication"]["uplink_bytes_per_client_round"]
        for r in (plain, coded)
    )
    assert half == {name: size / 2 for name, size in whole.items()}
    clipped = [entry["figures"]["clipped"] for entry in coded.history]
    assert all(0 < share <= 1 for share in clipped)
    assert all("figures" not in entry for entry in plain.history)
    assert coded.summary["metrics"] != plain.summary["metrics"]
