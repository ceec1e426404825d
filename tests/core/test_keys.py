"""Keys by meaning: no two uses share random bits."""

import itertools

import jax

from fedpeft_jax.core.keys import (
    NO_ROUND,
    ClientPurpose,
    RunPurpose,
    ServerPurpose,
    client_key,
    purpose_key,
    run_key,
)


def data(key):
    return tuple(jax.random.key_data(key).tolist())


def test_keys_differ_by_everything_that_they_are_made_of():
    runs = {data(run_key(s, p)) for s, p in itertools.product(range(3), RunPurpose)}
    assert len(runs) == 3 * len(RunPurpose)
    key = run_key(0, RunPurpose.ROUNDS)
    clients = {
        data(purpose_key(client_key(key, round_, client), purpose))
        for round_, client, purpose in itertools.product(
            (0, 1, 7, NO_ROUND), (0, 1, 2, 6040), ClientPurpose
        )
    }
    server = {
        data(purpose_key(jax.random.fold_in(key, round_), purpose))
        for round_, purpose in itertools.product((0, 1, 7), ServerPurpose)
    }
    assert len(clients) == 4 * 4 * len(ClientPurpose)
    assert len(server) == 3 * len(ServerPurpose)
    assert not clients & server


def test_the_servers_purposes_are_beyond_every_client_id():
    assert min(ServerPurpose) > 2**30
