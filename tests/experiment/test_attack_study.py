"""Attacks on tiny runs: clean updates reveal the items, and noise reveals nothing."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fedpeft_jax.core.errors import InputError
from fedpeft_jax.experiment import (
    configure,
    enter_phase,
    make_clients,
    make_phases,
    prepare,
    start,
)
from fedpeft_jax.experiment.attack_study import Plan, check_plan, spread_rounds, study
from fedpeft_jax.experiment.attack_tools import make_tools, read_server, score_items
from fedpeft_jax.experiment.callbacks import Callbacks
from fedpeft_jax.experiment.observation import Observed, make_observe
from fedpeft_jax.federated import Release
from fedpeft_jax.privacy.attacks import auc, mean_over_victims
from tests.helpers import client_data
from tests.small_runs import NUM_ITEMS, SETTINGS, STRATEGIES, small_runs

PLAN = Plan(victims=20, observed_rounds=(1, 2), secure_sums=(1,), attacks=("moves",))

pytestmark = pytest.mark.usefixtures("quick_compilation")


@pytest.fixture(scope="module", autouse=True)
def _small():
    with small_runs():
        yield


@functools.cache
def prepared_of(name):
    config = configure(**{**SETTINGS, **STRATEGIES[name]})
    return config, prepare(config)


def figures(entries, attack, known, clients=1, rounds=1, target="member"):
    (found,) = [
        entry
        for entry in entries
        if (entry["attack"], entry["knows_rows"], entry["clients"])
        == (attack, known, clients)
        and (entry["rounds"], entry["target"]) == (rounds, target)
    ]
    return found


@pytest.mark.parametrize("name", [pytest.param("full", marks=pytest.mark.slow), "lora"])
def test_clean_updates_reveal_the_items(name):
    """LoRA's B is zero before the observed round; its rows move in the second epoch."""
    config, prepared = prepared_of(name)
    plan = PLAN
    if name == "lora":
        first = config.run.warm_up_rounds
        plan = PLAN._replace(attack_round=first)
    entries = study(config, prepared, plan, Callbacks())
    for known in (True, False):
        assert figures(entries, "moves", known)["auc"]["mean"] > 0.95
        assert figures(entries, "moves", known)["precision"]["mean"] > 0.9
        assert figures(entries, "moves", known)["victims"] == 20
    thirds = figures(entries, "moves", False)["by_activity"]
    assert sum(third["victims"] for third in thirds.values()) == 20
    chance = figures(entries, "popularity", False)["chance"]["mean"]
    assert 0 < chance < 0.5
    assert {entry["attack"] for entry in entries} == {"moves", "popularity"}


def test_a_small_epsilon_leaves_chance():
    _, prepared = prepared_of("full")
    config = configure(
        **{**SETTINGS, **STRATEGIES["full"]},
        privacy="gaussian(clip=0.5)",
        privacy_model="local",
        target_epsilon=1.0,
    )
    entries = study(config, prepared, PLAN, Callbacks())
    for known in (True, False):
        found = figures(entries, "moves", known)["auc"]
        assert abs(found["mean"] - 0.5) < 4 * found["error"] < 0.2


@pytest.mark.slow
def test_shadow_clients_reveal_the_items():
    config, prepared = prepared_of("full")
    plan = PLAN._replace(attacks=("moves", "shadow"), secure_sums=(1, 10))
    entries = study(config, prepared, plan, Callbacks())
    for known in (True, False):
        assert figures(entries, "shadow", known)["auc"]["mean"] > 0.85
        # A sum of ten clients hides who has an item.
        assert figures(entries, "moves", known)["auc"]["mean"] > 0.95
        assert figures(entries, "moves", known, 10)["auc"]["mean"] < 0.9


SLOW = [pytest.param(name, marks=pytest.mark.slow) for name in ("full", "rq")]


HASH = pytest.param("hash", marks=pytest.mark.slow)
ROWS_ALONE = pytest.mark.parametrize(
    "attacked", ["lora", HASH, *SLOW], indirect=True, scope="module"
)


@pytest.fixture(scope="module", params=["lora", "hash", *SLOW])
def attacked(request):
    """The tools, the state and the positives of one strategy in its main phase."""
    config, prepared = prepared_of(request.param)
    phases = make_phases(config, prepared)
    clients = make_clients(config, prepared.split, phases[0].algorithm.training.sampler)
    state = start(config.run.seed, phases, prepared.split.num_clients)
    state = enter_phase(state, phases, 0)
    if len(phases) > 1:
        state = enter_phase(state, phases, 1)
    phase = phases[-1]
    tools = make_tools(config, phase, state, clients, (1,))
    return tools, state, clients, prepared.split


def labels_of(split, client):
    labels = np.zeros(NUM_ITEMS, bool)
    labels[split.train.row(client)] = True
    return labels


def test_noise_reveals_nothing(attacked):
    tools, state, _, split = attacked
    server, rng = read_server(tools, state), np.random.default_rng(0)
    found: dict = {}
    for client in range(40):
        noise = jax.tree.map(
            lambda x: rng.normal(size=x.shape).astype(np.float32),
            (state.rounds.shared, state.rounds.rows),
        )
        labels, known = labels_of(split, client), tools.touched(state, client)
        scores = score_items(
            tools, server, Observed(*noise), known, ("moves", "sparse")
        )
        for attack, values in scores.items():
            found.setdefault(attack, []).append(auc(values[known], labels[known]))
    for attack, values in found.items():
        mean = mean_over_victims(values)
        assert abs(mean.value - 0.5) < 4 * mean.error, attack


@ROWS_ALONE
def test_the_observed_sum_is_that_of_the_round(attacked):
    """Two clients that are summed are the weighted mean of the two alone."""
    tools, state, clients, _ = attacked
    one = [tools.observe[1](state, [client]) for client in (3, 7)]
    both = make_observe(tools.phase.algorithm, clients, 2)(state, [7, 3])
    weights = clients.counts[[3, 7]] / clients.counts[[3, 7]].sum()
    expected = jax.tree.map(lambda a, b: weights[0] * a + weights[1] * b, *one)
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-6),
        tuple(both),
        tuple(expected),
    )
    for client, update in zip((3, 7), one, strict=True):
        moved = np.zeros(NUM_ITEMS, bool)
        for leaf in jax.tree.leaves(update.rows):
            moved |= leaf.any(axis=1)
        if jax.tree.leaves(update.rows):
            np.testing.assert_array_equal(moved, tools.touched(state, client))


@ROWS_ALONE
def test_noise_of_a_release_stage_is_observed(attacked):
    tools, state, clients, _ = attacked

    def apply(sums, own, cohort, key):
        del cohort
        shared = jax.tree.map(jnp.ones_like, sums.shared.value)
        rows = jax.tree.map(jnp.ones_like, sums.rows.value)
        return (
            sums._replace(
                shared=sums.shared._replace(value=shared),
                rows=sums.rows._replace(value=rows),
            ),
            own,
            {},
        )

    release = Release(lambda server: (), apply)
    algorithm = tools.phase.algorithm._replace(release=release)
    seen = make_observe(algorithm, clients, 1)(state, [5])
    for leaf in jax.tree.leaves(tuple(seen)):
        np.testing.assert_allclose(leaf, 1 / clients.counts[5], rtol=1e-6)


def test_the_incidence_is_that_of_the_embedding(attacked):
    tools, state, *_ = attacked
    server = read_server(tools, state)
    if server.incidence is None:
        assert jax.tree.leaves(state.rounds.rows)
        return
    rng = np.random.default_rng(0)
    change = jax.tree.map(
        lambda x: rng.normal(size=x.shape).astype(np.float32), state.rounds.shared
    )
    moves = tools.view.moves(server.variables, change, state.rounds.rows)
    expected = server.incidence.T @ tools.view.table(change)
    np.testing.assert_allclose(moves, expected, rtol=1e-4, atol=1e-5)


def test_touched_items_are_those_of_the_round(attacked):
    tools, state, clients, split = attacked
    del clients
    data = client_data(split, state.rounds.key, state.rounds.round, 4)
    ids = np.asarray(data.item_ids)
    expected = np.isin(np.arange(NUM_ITEMS), ids[ids < NUM_ITEMS])
    np.testing.assert_array_equal(tools.touched(state, 4), expected)
    assert expected[split.train.row(4)].all()


def test_rounds_that_are_observed():
    assert spread_rounds([1, 2, 9], 4, 6) == {1: [6], 2: [4, 6], 9: [4, 5, 6]}


@pytest.mark.parametrize(
    ("plan", "says"),
    [
        (Plan(victims=0), "--victims=0"),
        (Plan(secure_sums=(1, 0)), "--secure_sums=1,0"),
        (Plan(observed_rounds=()), "--observed_rounds="),
        (Plan(attack_round=7), "--attack_round=7"),
        (Plan(attack_round=1), "2 (the end of the warm-up) to 6"),
    ],
)
def test_plans_that_are_refused(plan, says):
    with pytest.raises(InputError) as caught:
        check_plan(plan, configure(**SETTINGS))
    assert says in str(caught.value)


def test_more_clients_than_there_are():
    config, prepared = prepared_of("full")
    with pytest.raises(InputError, match="100 clients would be observed"):
        study(config, prepared, Plan(), Callbacks())
