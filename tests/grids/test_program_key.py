"""Which runs may share a program, and which of their numbers it takes as arguments."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fedpeft_jax.experiment import configure, make_algorithm, make_model
from fedpeft_jax.federated import OPTIMIZERS
from fedpeft_jax.grids.program_key import (
    differing_rates,
    program_key,
    rates_of,
    with_rates,
)

DP = {"privacy": "gaussian(noise_multiplier=1.0)"}
LOCAL = {**DP, "privacy_model": "local"}


def key(**settings):
    return program_key(configure(**settings))


@pytest.mark.parametrize(
    "changes",
    [
        {"seed": 7},
        {"client_optimizer": "adam(learning_rate=0.3, eps=1e-6)"},
        {"server_optimizer": "sgd(learning_rate=5, momentum=0.0)"},
        {"shared_server_optimizer": "sgd(learning_rate=9.0)"},
        {"latent_scale": 0.5},
        {"embedding": "lora(rank=4, init_scale=0.3)"},
        {"rounds": 30, "checkpoint_every": 7, "out": "elsewhere"},
        {"warm_up_rounds": 3, "merge_every": 9},
        {"baselines": "random", "num_candidates": 7},
    ],
)
def test_what_changes_no_shape_shares_a_program(changes):
    assert key(merge_every=0) == key(**{"merge_every": 0, **changes})


@pytest.mark.parametrize(
    "changes",
    [
        {"embedding": "lora(rank=8)"},
        {"embedding": "lora(rank=4, alpha=2.0)"},
        {"embedding": "hash"},
        {"backbone": "fedncf"},
        {"client_optimizer": "sgd(learning_rate=0.01)"},
        {"server_optimizer": "sgd(learning_rate=5.0, momentum=0.9)"},
        {"local_epochs": 3},
        {"num_negatives": 2},
        {"cohort_size": 9},
        {"upload": "bfloat16"},
        {"features": 8},
        {"data_seed": 1},
        {"proximal": 0.1},
        {"eval_every": 5},
        DP,
    ],
)
def test_another_computation_is_another_program(changes):
    assert key() != key(**changes)


def test_central_noise_is_in_the_state_and_what_clients_do_is_not():
    other = {"privacy": "gaussian(noise_multiplier=2.0, clip=0.5)"}
    assert key(**DP) == key(**other) == key(privacy="gaussian", target_epsilon=3.0)
    assert key(**DP) != key(privacy="gaussian(noise_multiplier=0.0)")
    assert key(**DP) != key(privacy="laplace(noise_multiplier=1.0)")
    assert key(**DP) != key(privacy="gaussian(noise_multiplier=1.0, quantile=0.5)")
    assert key(**LOCAL) != key(**{**LOCAL, **other})
    louder = {"privacy": "gaussian(noise_multiplier=2.0)"}
    assert key(**LOCAL) == key(**{**LOCAL, **louder})
    sent = {**LOCAL, "upload": "bfloat16"}
    assert key(**sent) != key(**{**sent, **louder})


def test_momentum_is_no_argument_because_zero_means_none():
    rates = rates_of(configure(server_optimizer="sgd(learning_rate=2, momentum=0.9)"))
    assert rates["server_optimizer", "learning_rate"] == 2.0
    assert ("server_optimizer", "momentum") not in rates


def test_only_rates_that_differ_become_arguments():
    cells = [configure(client_optimizer=f"adam(learning_rate={x})") for x in (0.1, 0.2)]
    assert differing_rates(cells) == [
        {(s, "learning_rate"): x for s in ("client_optimizer", "private_optimizer")}
        for x in (0.1, 0.2)
    ]
    assert differing_rates(cells[:1]) == [{}]


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_an_optimizer_with_a_traced_rate_takes_the_same_step(name):
    config = configure(client_optimizer=f"{name}(learning_rate=0.5)")
    other = configure(client_optimizer=f"{name}(learning_rate=0.25)")
    algorithm = make_algorithm(
        config.training, config.server, make_model(config.model, num_items=3)
    )
    wanted = make_algorithm(
        other.training, other.server, make_model(other.model, num_items=3)
    )
    parts = {"params": jnp.array([1.0, -2.0]), "rows": {}, "private": jnp.ones(2)}

    def step(algorithm):
        optimizer = algorithm.training.optimizer
        return optimizer.update(parts, optimizer.init(parts), parts)[0]

    rates = differing_rates([config, other])[1]
    assert len(rates) == 2
    found = jax.jit(lambda rates: step(with_rates(config, algorithm, rates)))(rates)
    for role in ("params", "private"):
        np.testing.assert_allclose(found[role], step(wanted)[role], rtol=1e-6)
    assert with_rates(config, algorithm, {}) is algorithm
