"""Audits of small runs: correct ones pass, and every kind of mistake is caught."""

import numpy as np
import pytest

from fedpeft_jax import InputError
from fedpeft_jax.commands.audit import describe
from fedpeft_jax.experiment.audit import audit
from fedpeft_jax.experiment.config import configure
from fedpeft_jax.experiment.phases import make_phases
from fedpeft_jax.experiment.privacy_plan import plan_privacy
from fedpeft_jax.federated.release import identity_release
from tests.small_runs import NUM_USERS, SETTINGS, Listener, run_cli, small_runs

pytestmark = pytest.mark.usefixtures("quick_compilation")

DELTA, CANARIES = 0.05, 1500


@pytest.fixture(scope="module", autouse=True)
def _small():
    with small_runs():
        yield


def config(noise, **settings):
    """Everybody takes part in two rounds, and sends one table of 512 x 8 numbers."""
    return configure(
        **{
            **SETTINGS,
            "full": "none",
            "embedding": "hash(num_buckets=512)",
            "warm_up_rounds": 0,
            "rounds": 2,
            "cohort": "fixed",
            "cohort_fraction": 1.0,
            "delta": DELTA,
            "local_epochs": 1,
            "client_optimizer": "sgd(learning_rate=0.1)",
            "privacy": f"gaussian(noise_multiplier={noise})",
            **settings,
        }
    )


@pytest.fixture(scope="module")
def audited():
    return audit(config(1.9), CANARIES)


def test_the_bounds_are_below_the_accountants_epsilon(audited):
    assert audited.adjacency == "replace_one" and audited.rounds == 2
    assert 0 < audited.epsilon_lower_bound < audited.epsilon_accountant
    assert 0 < audited.epsilon_gaussian < audited.epsilon_accountant


def test_scores_have_the_mean_and_the_spread_of_the_released_noise(audited):
    """Two rounds of +1 or -1, and noise of 1.9 on each round's sum."""
    assert len(audited.in_scores) + len(audited.out_scores) == CANARIES
    for scores, mean in ((audited.in_scores, 2), (audited.out_scores, -2)):
        assert scores.mean() == pytest.approx(mean, abs=0.5)
        # Besides the noise there are the products with other canaries' directions.
        spread = np.sqrt(2 * 1.9**2 + 2**2 * CANARIES / 4096)
        assert scores.std() == pytest.approx(spread, rel=0.1)


def test_an_accountant_without_the_2_of_replace_one_is_caught(audited):
    """It takes z for z / 2, as one does whose run has half of the noise it states."""
    plan = plan_privacy(config(1.9), NUM_USERS + CANARIES)
    assert plan.epsilon(2) == audited.epsilon_accountant
    wrong = plan.accountant._replace(noise_multiplier=2 * 1.9).epsilon(2)
    assert wrong < audited.epsilon_lower_bound - 0.1
    assert wrong < audited.epsilon_gaussian - 0.5


def unbounded(config, prepared):
    """Phases of a server that forgets to bound the updates."""
    return [
        phase._replace(
            algorithm=phase.algorithm._replace(
                release=phase.algorithm.release._replace(bound=identity_release().bound)
            )
        )
        for phase in make_phases(config, prepared)
    ]


@pytest.mark.slow
def test_a_bound_that_is_not_applied_is_caught():
    found = audit(config(8.0, rounds=1), 100, phases=unbounded)
    assert found.epsilon_lower_bound > found.epsilon_accountant + 0.5
    assert "above the accountant's" in describe(found)


@pytest.mark.slow
def test_without_noise_the_lower_bound_is_large():
    listener = Listener()
    found = audit(config(0.0, rounds=1), 100, callbacks=[listener])
    assert found.epsilon_accountant == np.inf
    assert found.in_scores.min() > found.out_scores.max()
    assert found.epsilon_lower_bound > 1.5 and found.epsilon_gaussian > 4
    assert listener.tasks[-1][:3] == ("auditing", 1, 1)


VARIANTS = {
    "poisson": {"cohort": "poisson", "cohort_fraction": 0.5, "rounds": 8},
    "laplace": {
        "privacy": "laplace(noise_multiplier=2.0)",
        "cohort": "poisson",
        "cohort_fraction": 0.5,
    },
    "adaptive": {"privacy": "gaussian(noise_multiplier=1.9, quantile=0.5)"},
    "local": {"privacy_model": "local", "upload": "int8"},
    "phases": {
        "full": "frozen",
        "embedding": "lora(rank=2)",
        "warm_up_rounds": 2,
        "merge_every": 2,
        "rounds": 6,
    },
    "stopped": {"rounds": 6, "max_epsilon": 4.0},
}


@pytest.mark.slow
@pytest.mark.parametrize("name", VARIANTS)
def test_other_runs_pass_too(name):
    found = audit(config(1.9, **VARIANTS[name]), 300)
    assert found.epsilon_lower_bound < found.epsilon_accountant
    everybody = name in ("adaptive", "phases", "stopped", "local")
    assert (found.epsilon_gaussian is not None) == everybody
    assert (found.epsilon_gaussian or 0) < found.epsilon_accountant
    assert found.rounds == {"phases": 6, "poisson": 8}.get(name, found.rounds)
    if name == "stopped":
        assert 1 < found.rounds < 6 and found.epsilon_accountant <= 4
    if name != "local":
        assert found.in_scores.mean() > found.out_scores.mean() + 0.3


@pytest.mark.slow
def test_the_bound_is_closer_if_other_clients_are_silent():
    """Three canaries for each of the 60 users, who agree on one direction."""
    given = {"client_optimizer": "sgd(learning_rate=1000.0)"}
    among, alone = (audit(config(1.9, **given), 200, alone=x) for x in (False, True))
    assert alone.in_scores.std() < among.in_scores.std()
    assert alone.epsilon_gaussian < alone.epsilon_accountant


@pytest.mark.slow
def test_the_command_prints_both_epsilons(capsys):
    given = {"privacy": "gaussian(noise_multiplier=2.0)", "rounds": 2, "canaries": 50}
    assert run_cli(script="audit", **given) == 0
    out = capsys.readouterr().out
    assert out.startswith("accountant: epsilon ") and "add_or_remove_one" in out
    assert "95% confidence" in out and "found no mistake" in out


def test_a_run_without_a_mechanism_is_refused(capsys):
    assert run_cli(script="audit", canaries=50) == 2
    assert "--privacy='gaussian(noise_multiplier=1.0)'" in capsys.readouterr().err
    with pytest.raises(InputError, match="canaries"):
        audit(config(1.0), 2)
