"""Finds out where the run in a folder stands: finished, to be continued, or new."""

from typing import Any, NamedTuple

from fedpeft_jax.core.errors import InputError
from fedpeft_jax.core.typing import PyTree
from fedpeft_jax.experiment.checkpoint import Saved, load_variables
from fedpeft_jax.experiment.config import RunConfig
from fedpeft_jax.experiment.identity import check_same_settings, differences
from fedpeft_jax.experiment.recorder import Recorder
from fedpeft_jax.experiment.run_folder import RunFolder
from fedpeft_jax.experiment.summary import FORMAT


class Finished(NamedTuple):
    """The result of a run that has finished.

    Attributes:
      summary: the content of `summary.json`.
      variables: the model's variables by collection.
    """

    summary: dict[str, Any]
    variables: PyTree


def finished(
    folder: RunFolder, config: RunConfig, recorder: Recorder
) -> Finished | None:
    """Returns the result of the run in a folder, if it is this run and has finished.

    Args:
      folder: the folder of the run.
      config: the configuration.
      recorder: receives a note if the model is damaged.

    Raises:
      InputError: if the folder holds a run with other settings, or a summary that is
        none.
    """
    held, summary = folder.held_config(), folder.held_summary()
    if held is None:
        return None
    check_same_settings(held, config.flat(), str(folder.path))
    if summary is not None and summary.get("format") != FORMAT:
        raise InputError(
            f"{folder.path / 'summary.json'} is no summary of format {FORMAT}: delete "
            "it and run the same command again"
        )
    moved = differences(held, config.flat(), places=True)
    if summary is None or moved or held["rounds"] < config.run.rounds:
        return None
    try:
        variables = load_variables(folder.path / "checkpoints" / "final")
    except InputError as error:
        recorder.callbacks.note(f"{error}; the model is made again from a checkpoint")
        return None
    recorder.callbacks.note(f"{folder.path} holds this run, and it has finished")
    return Finished(summary, variables)


def open_folder(config: RunConfig, recorder: Recorder) -> Saved | None:
    """Prepares the folder of a run, and returns the checkpoint to start from.

    What the folder holds of later rounds than the checkpoint is removed.

    Args:
      config: the configuration.
      recorder: has the folder, if there is one, and the fingerprint of the data.

    Returns:
      The newest checkpoint that is whole; None if the run starts at its beginning.

    Raises:
      InputError: if the folder holds a run with other settings or other data.
    """
    folder, note = recorder.folder, recorder.callbacks.note
    if folder is None or recorder.checkpoints is None:
        return None
    held = folder.held_config()
    if held is None:
        # Not written earlier: a run that cannot start must leave no folder behind.
        folder.write_config(config.flat())
        return None
    check_same_settings(held, config.flat(), str(folder.path))
    start = None
    for saved in recorder.checkpoints.newest(note):
        facts = saved.facts
        if facts["fingerprint"] != recorder.fingerprint:
            raise InputError(
                f"{folder.path} holds a run on other data than these: set `out` to a "
                "new folder, or use the same files"
            )
        try:
            history = folder.read_metrics(*facts["metrics"])
        except InputError as error:
            note(f"{error}; an older checkpoint is used instead")
            continue
        recorder.restore(facts, history)
        start = saved
        break
    round_ = start.facts["round"] if start else 0
    note(f"{folder.path} holds this run: it continues after round {round_}")
    recorder.callbacks.resume(round_, recorder.history)
    if folder.held_summary() is not None and config.run.rounds > held["rounds"]:
        folder.set_aside(f"{held['rounds']}-rounds")
    folder.cut_metrics(start.facts["metrics"][0] if start else 0)
    recorder.checkpoints.remove_after(round_)
    folder.write_config(config.flat())
    return start
