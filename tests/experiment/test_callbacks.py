"""Callbacks: what they receive, in which order, and that they cannot harm a run."""

import itertools
import signal

import pytest

from fedpeft_jax.core.errors import DivergedError, InputError, StoppedError
from fedpeft_jax.experiment import Callback, ConsoleReporter, configure, run
from fedpeft_jax.experiment.callbacks import Callbacks
from tests.experiment.events import scalars
from tests.small_runs import SETTINGS, Listener, history, results, small_runs


@pytest.fixture(scope="module", autouse=True)
def _small():
    with small_runs():
        yield


class Calls(Callback):
    """Keeps the calls by the names of their methods, with their arguments."""

    def __init__(self):
        self.calls = []

    def begin(self, config):
        self.calls.append(("begin", config))

    def resume(self, done, entries):
        self.calls.append(("resume", done, entries))

    def note(self, text):
        self.calls.append(("note", text))

    def progress(self, task, done, total, **values):
        self.calls.append((task, done, total, values))

    def validation(self, entry):
        self.calls.append(("validation", entry))

    def end(self, summary):
        self.calls.append(("end", summary))

    def close(self):
        self.calls.append(("close",))

    def of(self, name):
        return [call[1] for call in self.calls if call[0] == name]

    @property
    def order(self):
        """The names, each once where it comes several times in a row."""
        names = (call[0] for call in self.calls)
        return [name for name, _ in itertools.groupby(names)]


def in_folder(path, callbacks, tensorboard=False, **arguments):
    config = configure(**SETTINGS, out=str(path), tensorboard=tensorboard)
    return run(config, callbacks=callbacks, **arguments)


class Fails(Callback):
    """Raises in one method, whenever it is called."""

    def __init__(self, method, error):
        def fail(*arguments, **values):
            self.failed += 1
            raise error

        self.failed = 0
        setattr(self, method, fail)


@pytest.fixture(scope="module")
def followed(tmp_path_factory):
    """A run with two callbacks that keep their calls, and its folder."""
    path, calls = tmp_path_factory.mktemp("runs") / "run", (Calls(), Calls())
    return in_folder(path, calls), path, *calls


def test_the_order_of_the_calls(followed):
    result, path, first, second = followed
    assert first.calls == second.calls
    order = first.order
    assert order[0] == "begin" and order[-2:] == ["end", "close"]
    assert order.index("pretraining") < order.index("rounds") < order.index("evaluate")
    # The entry of a round comes before the bar shows that the round is done.
    rounds = [name for name in order if name in ("validation", "rounds")]
    assert rounds == ["validation", "rounds"] * 3
    assert first.of("rounds") == [2, 4, 6]
    assert first.of("validation") == history(path)
    assert first.of("begin")[0].flat()["out"] == str(path)
    assert first.of("end") == [result.summary]
    assert "resume" not in order


def test_a_resumed_run_says_its_round_and_what_was_measured(tmp_path):
    seen = []

    class Watch(Callback):
        def progress(self, task, done, total, **values):
            seen.append((task, done))

    def stop():
        return signal.SIGTERM if ("rounds", 4) in seen else None

    with pytest.raises(StoppedError):
        in_folder(tmp_path, [Watch()], tensorboard=True, stop=stop)
    events = tmp_path / "tensorboard"
    assert [step for step, _ in scalars(events)["train/loss"]] == [2, 4]
    calls = Calls()
    in_folder(tmp_path, [calls], tensorboard=True)
    (resume,) = (call for call in calls.calls if call[0] == "resume")
    assert resume[1:] == (4, history(tmp_path)[:2])
    assert calls.of("rounds") == [6]
    assert [entry["round"] for entry in calls.of("validation")] == [6]
    assert calls.order.index("resume") < calls.order.index("rounds")
    # A run that has finished ends at once.
    again = Calls()
    in_folder(tmp_path, [again], tensorboard=True)
    assert again.order == ["begin", "note", "end", "close"]
    assert again.of("end") == calls.of("end")
    # TensorBoard has every round once.
    found = scalars(events)
    for name, value in {"train/loss": "loss", "bytes/total": "bytes"}.items():
        entries = history(tmp_path)
        assert [step for step, _ in found[name]] == [2, 4, 6]
        measured = [entry[value] for entry in entries]
        assert [height for _, height in found[name]] == pytest.approx(measured)
    test = calls.of("end")[0]["metrics"]["test"]["full"]
    assert found["test/full/mrr"] == [(6, pytest.approx(test["mrr"]))]


def test_callbacks_that_raise_or_change_what_they_receive_change_no_result(
    followed, tmp_path
):
    class Changes(Callback):
        def validation(self, entry):
            entry["metrics"]["valid"]["sampled"].clear()

        def end(self, summary):
            summary.clear()

    methods = ("begin", "note", "progress", "validation", "end", "close")
    bad = [Fails(method, ValueError("no such thing")) for method in methods]
    listener = Listener()
    result = in_folder(tmp_path, [*bad, Changes(), listener])
    assert results(tmp_path) == results(followed[1])
    assert result.summary["metrics"]["test"]
    assert sorted(note for note in listener.notes if "Fails" in note) == [
        f"the callback Fails failed in `{method}` and is left out from here on: "
        "ValueError: no such thing"
        for method in sorted(methods)
    ]
    # A callback that failed is closed in any case.
    assert [one.failed for one in bad] == [1, 1, 1, 1, 1, 2]


def test_a_failure_that_no_callback_can_note_is_on_standard_error(capsys):
    callbacks = Callbacks([Fails("begin", OSError("broken pipe")), Quiet()])
    callbacks.begin(configure())
    assert capsys.readouterr().err == (
        "the callback Fails failed in `begin` and is left out from here on: "
        "OSError: broken pipe\n"
    )


class Quiet(Callback):
    """Reads no notes."""


def test_a_keyboard_interrupt_ends_the_run(tmp_path):
    calls = Calls()
    with pytest.raises(KeyboardInterrupt):
        in_folder(tmp_path, [Fails("validation", KeyboardInterrupt()), calls])
    assert calls.order[-1] == "close" and "end" not in calls.order


def test_callbacks_are_closed_after_a_run_that_failed():
    calls = Calls()
    config = configure(**SETTINGS, client_optimizer="sgd(learning_rate=1e30)")
    with pytest.raises(DivergedError):
        run(config, callbacks=[calls])
    assert calls.order[-1] == "close" and "end" not in calls.order


@pytest.mark.parametrize("given", [ConsoleReporter(), [print], [ConsoleReporter]])
def test_what_is_no_list_of_callbacks_is_one_error(given):
    with pytest.raises(InputError, match="callback"):
        run(configure(**SETTINGS), callbacks=given)
