"""Mechanisms inside rounds: what they release, with what noise, and to whom."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from fedpeft_jax.core.roles import ROWS, SHARED
from fedpeft_jax.core.sampling import FixedCohorts, PoissonCohorts
from fedpeft_jax.experiment.privacy_plan import PrivacyPlan
from fedpeft_jax.experiment.private_rounds import with_privacy
from fedpeft_jax.federated import Release, chain_releases
from fedpeft_jax.federated.aggregators import mean
from fedpeft_jax.federated.pipelines import bfloat16_upload
from fedpeft_jax.federated.updates import dense_update
from fedpeft_jax.privacy.accounting import Accountant
from fedpeft_jax.privacy.mechanisms import gaussian, laplace
from tests.helpers import Engine, assert_same, make_model, make_training, random_split

pytestmark = pytest.mark.usefixtures("quick_compilation")

NUM_ITEMS = 900  # most rows are touched by nobody
COUNTS = [3, 9, 1, 4, 2, 3, 12, 2, 5, 7]
COHORT = 6
SPLIT = random_split(COUNTS, NUM_ITEMS)
FIXED = FixedCohorts(len(COUNTS), COHORT)


class Case(NamedTuple):
    """A mechanism in rounds; engines of equal cases are compiled once."""

    mechanism: Any = None
    sampling: Any = FIXED
    model: str = "central"
    each_client: bool = False
    embedding: str = "lora(rank=2)"
    varying: bool = False

    def plan(self):
        z = self.mechanism.noise_multiplier
        accountant = Accountant(
            self.mechanism.name, self.model, self.sampling, "replace_one", 1e-5, z
        )
        return PrivacyPlan(
            self.mechanism, accountant, np.arange(9), 9, self.each_client
        )


CENTRAL = Case(gaussian(1.5, clip=0.2), PoissonCohorts(10, 0.45), varying=True)
LOCAL = CENTRAL._replace(model="local")


def recording():
    """A stage that keeps the sums that reach it."""

    def init(server):
        update = dense_update(server, NUM_ITEMS)
        sums = mean().map(update, jax.random.key(0))
        return jax.tree.map(jnp.zeros_like, sums)

    return Release(init, lambda sums, state, cohort, key: (sums, sums, {}))


@functools.cache
def engine_of(case):
    model = make_model(NUM_ITEMS, "frozen", case.embedding)
    training = make_training(model)._replace(uniform_weights=True)
    pipelines = {"upload": bfloat16_upload()} if case.each_client else {}
    engine = Engine(SPLIT, training, COHORT, pipelines=pipelines)
    algorithm = engine.algorithm
    if case.mechanism is not None:
        algorithm = with_privacy(algorithm, case.plan())
    algorithm = algorithm._replace(
        release=chain_releases(recording(), algorithm.release, recording()),
        varying_cohorts=case.varying,
    )
    engine.__dict__["algorithm"] = algorithm  # in place of the cached one
    return engine


@functools.cache
def released(case, rounds=1):
    """The sums before and after the stages of the last round, the state, the report."""
    engine = engine_of(case)
    state, report = engine.rounds(*engine.start(), num_rounds=rounds)
    before, _, after = state.release
    return before, after, state, report


def difference(one, other):
    trees = ((x.shared.value, x.rows.value) for x in (one, other))
    leaves = (jax.tree.leaves(tree) for tree in trees)
    parts = [np.ravel(a - b) for a, b in zip(*leaves, strict=True)]
    return np.concatenate(parts).astype(float)


UNBOUNDED = Case(gaussian(0.0, clip=None))
SLOW = pytest.mark.slow


@pytest.mark.parametrize(
    "case",
    [
        UNBOUNDED,
        pytest.param(UNBOUNDED._replace(model="local"), marks=SLOW),
        pytest.param(UNBOUNDED._replace(mechanism=laplace(0.0, None)), marks=SLOW),
        pytest.param(UNBOUNDED._replace(embedding="hash(num_buckets=16)"), marks=SLOW),
    ],
)
def test_without_noise_and_bound_nothing_changes(case):
    *_, state, report = released(case, 3)
    *_, plain, expected = released(Case(embedding=case.embedding), 3)
    assert_same(state._replace(release=()), plain._replace(release=()))
    assert_same(report.losses, expected.losses)


@pytest.mark.parametrize(
    "case",
    [
        CENTRAL,
        LOCAL,
        pytest.param(CENTRAL._replace(embedding="hash(num_buckets=16)"), marks=SLOW),
        pytest.param(LOCAL._replace(embedding="hash(num_buckets=16)"), marks=SLOW),
    ],
)
def test_every_number_of_the_sum_has_the_stated_noise(case):
    before, after, _, report = released(case)
    drawn = difference(after, before)
    scale = 1.5 * 0.2 * (1 if case.model == "central" else COHORT**0.5)
    assert stats.kstest(drawn, stats.norm(scale=scale).cdf).pvalue > 1e-3
    assert np.isnan(report.losses[0]) and not float(after.loss.value)
    signal = difference(before, jax.tree.map(jnp.zeros_like, before))
    ratio = np.linalg.norm(signal) / np.linalg.norm(drawn)
    assert float(report.figures["signal_to_noise"][0]) == pytest.approx(ratio, rel=1e-4)


@SLOW
@pytest.mark.parametrize("copies", [1, COHORT])
def test_laplace_noise_of_the_sum(copies):
    model = "central" if copies == 1 else "local"
    before, after, *_ = released(Case(laplace(0.5, clip=0.2), model=model))
    drawn = difference(after, before)
    each = np.random.default_rng(1).laplace(scale=0.1, size=(copies, 50_000))
    assert stats.ks_2samp(drawn, each.sum(axis=0)).pvalue > 1e-3


def test_rounds_have_noises_of_their_own():
    engine = engine_of(CENTRAL)
    state, frozen = engine.start()
    drawn = []
    for _ in range(2):
        state, _ = engine.rounds(state, frozen)
        before, _, after = state.release
        drawn.append(difference(after, before))
    assert abs(np.corrcoef(*drawn)[0, 1]) < 0.1


def test_rows_that_nobody_touched_are_noised_alike():
    before, after, *_ = released(CENTRAL)
    (exact,), (noised,) = (jax.tree.leaves(x.rows.value) for x in (before, after))
    touched = np.any(exact != 0, axis=1)
    assert 20 < touched.sum() < NUM_ITEMS / 2
    drawn = np.asarray(noised - exact)
    groups = drawn[touched].ravel(), drawn[~touched].ravel()
    assert stats.ks_2samp(*groups).pvalue > 1e-3


@pytest.mark.parametrize("case", [CENTRAL, LOCAL])
def test_a_sum_is_bounded_by_the_clips_of_its_clients(case):
    before, *_, report = released(case)
    total = difference(before, jax.tree.map(jnp.zeros_like, before))
    assert 0 < np.linalg.norm(total) <= COHORT * 0.2 * (1 + 1e-5)
    assert 0 < float(report.figures["clipped"][0]) <= 1.0
    assert float(report.figures["update_norm"][0]) > 0.1


def test_noises_of_single_clients_add_up_to_the_noise_of_their_sum():
    """What follows the noise of a client is a stage; here it rounds to bfloat16."""
    # The updates themselves are 20 times smaller than the noise.
    case = Case(gaussian(20.0, clip=0.2), model="local", each_client=True)
    before, after, _, report = released(case)
    assert_same(before, after)  # the server adds nothing
    total = difference(after, jax.tree.map(jnp.zeros_like, after))
    scale = 20.0 * 0.2 * COHORT**0.5
    assert stats.kstest(total, stats.norm(scale=scale).cdf).pvalue > 1e-3
    assert float(report.figures["clipped"][0]) > 0


def test_an_adaptive_clip_finds_its_quantile():
    engine = engine_of(Case(gaussian(1e-3, clip=50.0, quantile=0.5, clip_rate=0.5)))
    state, frozen = engine.start()
    for _ in range(10):
        state, report = engine.rounds(state, frozen, num_rounds=3)
    assert 0 < float(np.mean(report.figures["clipped"])) < 1
    assert 0 < float(report.figures["clip"][2]) < 5.0
    share = 1 - float(report.figures["clipped"][2])
    grown = float(state.release[1].clip) / float(report.figures["clip"][2])
    assert grown == pytest.approx(np.exp(-0.5 * (share - 0.5)), rel=1e-2)


def test_the_divisor_is_public():
    """A cohort's size is not released; under the local model the server knows it."""
    assert float(released(CENTRAL)[1].shared.weight) == pytest.approx(4.5)
    assert float(released(LOCAL)[1].shared.weight) == COHORT


@pytest.mark.parametrize(("case", "moves"), [(CENTRAL, True), (LOCAL, False)])
def test_a_cohort_without_clients(case, moves):
    """The sum of nobody is noised as any other, or the step would reveal it."""
    engine = engine_of(case)
    state, frozen = engine.start()
    arguments = list(engine.arguments(state, frozen, 1))
    arguments[3] = jnp.full_like(arguments[3], SPLIT.num_clients)
    arguments[4] = jnp.zeros_like(arguments[4])
    after, report = engine.run(*arguments)
    assert bool(report.finite) and int(after.round) == 1
    moved = jax.tree.map(
        lambda a, b: bool(np.any(a != b)),
        {SHARED: after.shared, ROWS: after.rows},
        {SHARED: state.shared, ROWS: state.rows},
    )
    assert set(jax.tree.leaves(moved)) == {moves}
    assert_same(after.private, state.private)
