"""What a callback writes for TensorBoard; `test_callbacks.py` has whole runs."""

import importlib.util
import time

import pytest

import fedpeft_jax
from fedpeft_jax.core.errors import InputError
from fedpeft_jax.experiment import TensorBoardCallback, configure, run
from tests.experiment.events import scalars


def entry(round_, **more):
    metrics = {"valid": {"sampled": {"ndcg@10": round_ / 100}}}
    return {
        "round": round_, "loss": 1 / round_, "metrics": metrics, "bytes": 8 * round_,
        **more,
    }  # fmt: skip


def rounds(callback, numbers, **more):
    for number in numbers:
        callback.validation(entry(number, **more))
        callback.progress("rounds", number, 90, loss=1 / number, **{"rounds/s": 5.0})


def test_rounds_that_run_again_are_there_once(tmp_path):
    """A run is killed after round 40, and continues from the checkpoint of round 20."""
    callback = TensorBoardCallback(tmp_path)
    callback.begin(configure())
    callback.progress("pretraining", 1, 2, loss=9.0)
    rounds(callback, (10, 20, 30, 40), figures={"clipped": 0.5})
    # Without `close`: events are there while the run goes on.
    for _ in range(100):
        steps = [step for step, _ in scalars(tmp_path).get("bytes/total", ())]
        if len(steps) == 4:
            break
        time.sleep(0.1)
    assert steps == [10, 20, 30, 40]
    after = TensorBoardCallback(tmp_path)
    after.begin(configure())
    after.resume(20, [entry(10), entry(20)])
    rounds(after, (30, 40, 50), figures={"clipped": 0.75})
    after.close()
    callback.close()
    found = scalars(tmp_path)
    halves = [(10, 0.5), (20, 0.5), (30, 0.75), (40, 0.75), (50, 0.75)]
    assert found["figures/clipped"] == halves
    assert [step for step, _ in found["train/loss"]] == [10, 20, 30, 40, 50]
    assert [value for _, value in found["train/loss"]] == pytest.approx(
        [1 / 10, 1 / 20, 1 / 30, 1 / 40, 1 / 50]
    )
    assert found["valid/sampled/ndcg_at_10"][-1] == (50, pytest.approx(0.5))
    assert found["time/rounds_per_second"][0] == (10, 5.0)


def test_events_may_begin_with_a_run_that_continues(tmp_path):
    callback = TensorBoardCallback(tmp_path)
    callback.begin(configure())
    private = [entry(r, privacy={"epsilon": r / 10}) for r in (10, 20)]
    callback.resume(20, private)
    rounds(callback, [30], privacy={"epsilon": None})  # None: it is infinite
    callback.close()
    found = scalars(tmp_path)
    assert found["privacy/epsilon"] == [(10, 1.0), (20, 2.0)]
    assert [step for step, _ in found["train/loss"]] == [10, 20, 30]


def test_a_run_that_has_finished_writes_nothing(tmp_path):
    callback = TensorBoardCallback(tmp_path)
    callback.begin(configure())
    callback.end({"metrics": {"test": {"full": {"mrr": 0.5}}}, "rounds": {}})
    callback.close()
    assert not list(tmp_path.iterdir())


def test_tensorboard_needs_a_folder_and_its_package(tmp_path, monkeypatch):
    with pytest.raises(InputError, match="needs a folder: set `out`"):
        run(configure(tensorboard=True))
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda n: None if n == "tensorboardX" else find(n)
    )
    out = str(tmp_path / "run")
    with pytest.raises(InputError, match=r"pip install -e '\.\[tensorboard\]'"):
        run(fedpeft_jax.configure(tensorboard=True, out=out))
    assert not list(tmp_path.iterdir())
