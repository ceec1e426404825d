"""A run that diverged with finite numbers says so; a healthy one never does."""

import numpy as np
import pytest

from fedpeft_jax.core.errors import DivergedError
from fedpeft_jax.experiment import configure, run
from fedpeft_jax.experiment.divergence import MOST_LOSS, diverged_round
from tests.small_runs import SETTINGS, history, run_cli, small_runs


@pytest.fixture(scope="module", autouse=True)
def _small():
    with small_runs():
        yield


@pytest.mark.parametrize(
    ("losses", "found"),
    [
        ([], None),
        ([0.69, 0.5, 0.3], None),
        ([0.7, 17.0, 466.0, MOST_LOSS], None),
        ([1001.0], 0),
        ([0.7, 5e4, 0.7], 1),
        ([0.7, np.nan], None),
        ([0.7, np.inf], 1),
    ],
)
def test_a_loss_that_no_healthy_run_has(losses, found):
    losses = np.array(losses, np.float32)
    assert diverged_round(losses, "bpr") == found
    assert diverged_round(losses, "bce()") == found
    # The scale of another loss is its author's.
    assert diverged_round(losses, "rating_error") is None


@pytest.mark.parametrize("rate", ["100.0", "1e10"])
def test_a_finite_divergence_ends_the_run_and_names_the_remedy(rate):
    settings = {**SETTINGS, "client_optimizer": f"adam(learning_rate={rate})"}
    with pytest.raises(DivergedError) as caught:
        run(configure(**settings))
    message = str(caught.value)
    assert message.startswith("training diverged: the loss of round ")
    assert "lower the learning rate of `client_optimizer`" in message
    assert "\n" not in message


def test_the_command_line_says_so_and_keeps_what_was_written(capsys, tmp_path):
    """Two rounds of warm-up are healthy; the server's step breaks those after it."""
    step = "sgd(learning_rate=1e9)"
    out = tmp_path / "run"
    assert run_cli(out=out, shared_server_optimizer=step, checkpoint_every=2) == 1
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith("error: training diverged: the loss of round ")
    assert "--client_optimizer" in line and str(out) in line
    assert [entry["round"] for entry in history(out)] == [2]
    names = sorted(path.name for path in (out / "checkpoints").iterdir())
    assert names == ["pretrained", "round-000002"]
    assert not (out / "summary.json").exists()


def test_a_step_of_one_is_no_divergence():
    settings = {**SETTINGS, "client_optimizer": "adam(learning_rate=1.0)"}
    assert run(configure(**settings)).summary["rounds"]["run"] == 6
