"""Runs one experiment from its configuration to its summary.

The driver calls plain functions one after the other. The training depends only on the
configuration, the data and the `RunState` that these functions pass on. The recorder
owns the clock, the callbacks and the folder.
"""

import contextlib
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from fedpeft_jax.core.errors import InputError
from fedpeft_jax.core.specs import name_of
from fedpeft_jax.data import Dataset
from fedpeft_jax.evaluation import Evaluator
from fedpeft_jax.experiment.callbacks import Callback, Callbacks
from fedpeft_jax.experiment.clients import make_clients
from fedpeft_jax.experiment.config import RunConfig
from fedpeft_jax.experiment.dataset_name import name_dataset
from fedpeft_jax.experiment.finish import finish
from fedpeft_jax.experiment.id_tables import frames_of, id_tables
from fedpeft_jax.experiment.identity import fingerprint
from fedpeft_jax.experiment.kept_pretraining import keep
from fedpeft_jax.experiment.once import Once, make_anew
from fedpeft_jax.experiment.phase_rounds import Validate, train_phase
from fedpeft_jax.experiment.phases import (
    Phase,
    check_phases,
    enter_phase,
    make_phases,
    start,
)
from fedpeft_jax.experiment.preparation import Prepared, prepare
from fedpeft_jax.experiment.privacy_plan import plan_privacy
from fedpeft_jax.experiment.privacy_report import privacy_notes
from fedpeft_jax.experiment.protocol import unsound_choices
from fedpeft_jax.experiment.recorder import Recorder
from fedpeft_jax.experiment.reporting import note_figures
from fedpeft_jax.experiment.resume import finished, open_folder
from fedpeft_jax.experiment.run_folder import RunFolder
from fedpeft_jax.experiment.snapshot import unpack
from fedpeft_jax.experiment.state import RunState, variables_of
from fedpeft_jax.experiment.stopping import Stop, never_stop
from fedpeft_jax.experiment.tensorboard import TensorBoardCallback
from fedpeft_jax.experiment.traffic import PhaseTraffic, measure_traffic
from fedpeft_jax.experiment.training import (
    Program,
    compile_rounds,
    evaluate,
    make_program,
)

Compile = Callable[[Program, RunState], Program]
"""Returns a program with its rounds compiled, as `training.compile_rounds` does."""


class RunResult(NamedTuple):
    """A finished run.

    Attributes:
      summary: the content of `summary.json`.
      variables: the model's variables by collection: those of the last round, or with
        early stopping those of the best validation.
      state: the state after the last round; None if the run had finished before.
    """

    summary: dict[str, Any]
    variables: dict[str, Any]
    state: RunState | None


def run(
    config: RunConfig,
    *,
    dataset: Dataset | None = None,
    folder: RunFolder | None = None,
    callbacks: Iterable[Callback] = (),
    phases: Callable[[RunConfig, Prepared], list[Phase]] = make_phases,
    validate: Validate = evaluate,
    stop: Stop = never_stop,
    once: Once = make_anew,
    compile_: Compile = compile_rounds,
) -> RunResult:
    """Prepares, trains and evaluates one experiment.

    If the folder holds the same run, the run continues from its newest checkpoint, and
    a run that has finished is not run again.

    Args:
      config: as `configure` returns it.
      dataset: a data set that replaces the one that the configuration names, e.g. from
        `from_frame`.
      folder: where results are written; None for the folder that the setting `out`
        names, and without one for memory alone.
      callbacks: follow the run, see `Callback`; none by default.
      phases: a function that returns the phases of the run.
      validate: a function that measures the model between rounds.
      stop: returns the signal that asks the run to stop, if there is one.
      once: makes what several runs of this process have in common.
      compile_: compiles the rounds of a phase.

    Returns:
      The summary, the variables of the model and the last state.

    Raises:
      InputError: for data or settings that cannot be used.
      DivergedError: if an update is not finite, or the loss is that of no healthy run.
      StoppedError: if a signal asked the run to stop; its state is saved.

    Example:
      >>> from fedpeft_jax import configure
      >>> quick = {"max_buckets": 1, "baselines": "random"}  # short to compile
      >>> result = run(configure(full="none", rounds=4, eval_every=2, **quick))
      >>> sorted(result.summary["metrics"]["test"])
      ['full', 'sampled']
    """
    watching = Callbacks(callbacks)
    if dataset is not None:
        config = name_dataset(config, dataset.name)
    with contextlib.ExitStack() as at_end:
        if folder is None and config.run.out is not None:
            folder = RunFolder(config.run.out, config.name, config.run.resume)
            at_end.callback(folder.close)
        recorder = Recorder(folder, watching, config.run.keep_checkpoints, stop)
        at_end.callback(recorder.close)
        at_end.callback(watching.close)
        if config.run.tensorboard:
            watching.add(_tensorboard(folder))
        watching.begin(config)
        if folder is not None and dataset is None:
            done = finished(folder, config, recorder)
            if done is not None:
                watching.end(done.summary)
                return RunResult(*done, None)
        kept = None if folder is None else folder.pretrained
        prepared = prepare(config, watching, dataset, kept, once)
        recorder.seconds.update(load_s=prepared.load_s, pretrain_s=prepared.pretrain_s)
        for note in privacy_notes(config, prepared.split.num_clients):
            watching.note(note)
        for choice in unsound_choices(config):
            watching.note(f"unsound protocol: {choice}")
        with recorder.time("pretrain_s"):
            planned = phases(config, prepared)
        check_phases(planned, config.run.rounds)
        result = _run(config, prepared, planned, validate, recorder, once, compile_)
        watching.end(result.summary)
        return result


def _tensorboard(folder: RunFolder | None) -> TensorBoardCallback:
    """Returns a callback that writes to the folder of a run."""
    if folder is None:
        raise InputError("`tensorboard=True` needs a folder: set `out`")
    return TensorBoardCallback(folder.path / "tensorboard")


def _run(
    config: RunConfig,
    prepared: Prepared,
    planned: list[Phase],
    validate: Validate,
    recorder: Recorder,
    once: Once,
    compile_: Compile,
) -> RunResult:
    """Trains from the beginning or from a checkpoint, and evaluates."""
    recorder.fingerprint = fingerprint(config, prepared)
    saved = open_folder(config, recorder)
    folder = recorder.folder
    if folder is not None and not (saved and folder.has_tables()):
        tables = id_tables(prepared.dataset, prepared.split)
        folder.write_tables(tables.name, frames_of(tables))
    if folder is not None and prepared.learned is not None:
        keep(folder.pretrained, prepared.learned, recorder.callbacks.note)
    sampler = planned[0].algorithm.training.sampler
    clients = make_clients(config, prepared.split, sampler, once)
    split, candidates = prepared.split, prepared.candidates
    evaluator = once(
        ("evaluator", id(split), id(candidates)), lambda: Evaluator(split, candidates)
    )
    programs: dict[tuple[int, int], Program] = {}
    compiled: set[tuple[int, int]] = set()
    traffic: list[PhaseTraffic] = []
    privacy = plan_privacy(config, prepared.split.num_clients)
    state = start(config.run.seed, planned, prepared.split.num_clients)
    for index, phase in enumerate(planned):
        state = enter_phase(state, planned, index)
        again = index and phase.algorithm is planned[index - 1].algorithm
        traffic.append(
            traffic[-1]
            if again
            else measure_traffic(
                phase.name, phase.algorithm, variables_of(state), clients.counts
            )
        )
        if saved is not None:
            if index < saved.facts["phase"]:
                continue  # its rounds have run
            state, saved = unpack(saved.tree, state), None
        elif not again:
            recorder.pending.clear()
        key = (id(phase.model), id(phase.algorithm))
        if key not in programs:
            name = name_of(config.model.embedding)
            note_figures(recorder.callbacks, name, phase.fitted.figures)
            programs[key] = make_program(phase.model, phase.algorithm, clients)
        if state.round < phase.stop and key not in compiled:
            with recorder.time("compile_s"):
                programs[key] = compile_(programs[key], state)
            compiled.add(key)
        state, stopped = train_phase(
            config, phase, programs[key], state, traffic, evaluator, validate,
            recorder, privacy,
        )  # fmt: skip
        if stopped:
            break
    recorder.checkpoint(state, wait=True)
    summary, variables = finish(
        config=config,
        prepared=prepared,
        phase=phase,
        score=programs[key].score,
        state=state,
        traffic=traffic,
        evaluator=evaluator,
        recorder=recorder,
        privacy=privacy,
    )
    return RunResult(summary, dict(variables), state)
