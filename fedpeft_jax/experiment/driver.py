"""Runs one experiment from its configuration to its summary.

The driver calls plain functions one after the other. The training depends only on the
configuration, the data and the `RunState` that these functions pass on. The recorder
owns the clock, the reporter and the folder.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from fedpeft_jax.core.errors import DivergedError
from fedpeft_jax.core.specs import name_of
from fedpeft_jax.core.typing import Variables
from fedpeft_jax.data import Dataset
from fedpeft_jax.evaluation import Evaluator
from fedpeft_jax.evaluation.per_user import per_user_table
from fedpeft_jax.experiment.communication import (
    PhaseTraffic,
    measure_traffic,
    moving_bytes,
)
from fedpeft_jax.experiment.config import RunConfig
from fedpeft_jax.experiment.early_stopping import should_stop, update_best
from fedpeft_jax.experiment.phases import (
    Phase,
    check_phases,
    enter_phase,
    make_phases,
    start,
)
from fedpeft_jax.experiment.preparation import Prepared, prepare
from fedpeft_jax.experiment.protocol import unsound_choices
from fedpeft_jax.experiment.recorder import Recorder
from fedpeft_jax.experiment.reporting import Reporter, note_figures
from fedpeft_jax.experiment.run_folder import RunFolder
from fedpeft_jax.experiment.state import RunState, variables_of
from fedpeft_jax.experiment.summary import rank_all, summarize_run, valid_ndcg
from fedpeft_jax.experiment.training import (
    Program,
    advance,
    compile_rounds,
    evaluate,
    make_clients,
    make_program,
)

Validate = Callable[[Program, Variables, Evaluator], dict[str, dict[str, float]]]
"""Returns validation metrics by ranking, as `training.evaluate` does."""


class RunResult(NamedTuple):
    """A finished run.

    Attributes:
      summary: the content of `summary.json`.
      variables: the model's variables by collection: those of the last round, or with
        early stopping those of the best validation.
      state: the state after the last round.
    """

    summary: dict[str, Any]
    variables: dict[str, Any]
    state: RunState


def run(
    config: RunConfig,
    *,
    dataset: Dataset | None = None,
    folder: RunFolder | None = None,
    reporter: Reporter | None = None,
    phases: Callable[[RunConfig, Prepared], list[Phase]] = make_phases,
    validate: Validate = evaluate,
) -> RunResult:
    """Prepares, trains and evaluates one experiment.

    Args:
      config: as `configure` returns it.
      dataset: a data set that replaces the one that the configuration names, e.g. from
        `from_frame`.
      folder: where results are written; None keeps them in memory.
      reporter: receives notes and progress; None for no output.
      phases: a function that returns the phases of the run.
      validate: a function that measures the model between rounds.

    Returns:
      The summary, the variables of the model and the last state.

    Raises:
      InputError: for data or settings that cannot be used.
      DivergedError: if an update is not finite.

    Example:
      >>> from fedpeft_jax import configure
      >>> result = run(configure(full="none", rounds=4, eval_every=2))
      >>> sorted(result.summary["metrics"]["test"])
      ['full', 'sampled']
    """
    recorder = Recorder(folder, reporter)
    prepared = prepare(config, recorder.reporter, dataset)
    recorder.seconds.update(load_s=prepared.load_s, pretrain_s=prepared.pretrain_s)
    for choice in unsound_choices(config):
        recorder.reporter.note(f"unsound protocol: {choice}")
    with recorder.time("pretrain_s"):
        planned = phases(config, prepared)
    check_phases(planned, config.run.rounds)
    if folder is not None:
        # Not written earlier: a run that cannot start must leave no folder behind.
        folder.write_config(config.flat())

    sampler = planned[0].algorithm.training.sampler
    clients = make_clients(config, prepared.split, sampler)
    evaluator = Evaluator(prepared.split, prepared.candidates)
    programs: dict[tuple[int, int], Program] = {}
    traffic: list[PhaseTraffic] = []
    state = start(config.run.seed, planned, prepared.split.num_clients)
    for index, phase in enumerate(planned):
        state = enter_phase(state, planned, index)
        traffic.append(
            measure_traffic(
                phase.name, phase.algorithm, variables_of(state), clients.counts
            )
        )
        key = (id(phase.model), id(phase.algorithm))
        if key not in programs:
            name = name_of(config.model.embedding)
            note_figures(recorder.reporter, name, phase.fitted.figures)
            program = make_program(phase.model, phase.algorithm, clients)
            with recorder.time("compile_s"):
                programs[key] = compile_rounds(program, state)
        program = programs[key]
        state, stopped = _train(
            config, phase, program, state, traffic, evaluator, validate, recorder
        )
        if stopped:
            break
    return _finish(
        config, prepared, phase, program, state, traffic, evaluator, recorder
    )


def _train(
    config: RunConfig,
    phase: Phase,
    program: Program,
    state: RunState,
    traffic: Sequence[PhaseTraffic],
    evaluator: Evaluator,
    validate: Validate,
    recorder: Recorder,
) -> tuple[RunState, bool]:
    """Runs a phase; returns the state after it and whether the run stops early."""
    total, eval_every = config.run.rounds, config.evaluation.eval_every
    patience = config.evaluation.early_stopping_rounds
    shown: dict[str, float] = {}
    figures: dict[str, list[float]] = {}  # since the last validation
    while (first := state.round) < phase.stop:
        due = (first // eval_every + 1) * eval_every
        done = min(phase.stop, first + program.clients.chunk, due)
        with recorder.time("rounds_s"):
            state, report = advance(program, state, done - first)
            losses, finite = np.asarray(report.losses), bool(report.finite)
        if not finite:
            _diverged(state, recorder)
        loss = float(losses[done - first - 1])
        for name, values in report.figures.items():
            figures.setdefault(name, []).extend(values[: done - first].tolist())
        if done % eval_every and done != total:
            recorder.progress(done, total, loss=loss, **shown)
            continue
        with recorder.time("evaluate_s"):
            metrics = validate(program, variables_of(state), evaluator)
        entry = {
            "round": done,
            "phase": phase.name,
            "loss": loss,
            "metrics": {"valid": metrics} if metrics else {},
            "bytes": moving_bytes(traffic, state.phase_clients.tolist()),
        }
        if figures:
            means = {name: float(np.mean(values)) for name, values in figures.items()}
            entry["figures"], figures = means, {}
        recorder.validation(entry)
        value = valid_ndcg(entry)
        if metrics:
            shown = {"valid NDCG@10": value}
        recorder.progress(done, total, loss=loss, **shown)
        if phase.main:
            kept = variables_of(state) if patience else None
            best = update_best(state.best, done, value, kept)
            state = state._replace(best=best)
            if should_stop(best, done, patience):
                recorder.reporter.note(
                    f"stopped after round {done}: validation NDCG@10 was best at "
                    f"round {int(best.round)}"
                )
                return state, True
    return state, False


def _finish(
    config: RunConfig,
    prepared: Prepared,
    phase: Phase,
    program: Program,
    state: RunState,
    traffic: Sequence[PhaseTraffic],
    evaluator: Evaluator,
    recorder: Recorder,
) -> RunResult:
    """Ranks the held-out items, and writes the model and the summary."""
    round_, variables = state.round, variables_of(state)
    if config.evaluation.early_stopping_rounds and state.best.variables is not None:
        round_, variables = int(state.best.round), state.best.variables
    folder = recorder.folder
    if folder is not None:
        folder.save_variables("final", variables)
    with recorder.time("evaluate_s"):
        sampler = phase.algorithm.training.sampler
        ranks = rank_all(config, prepared, evaluator, program.score, variables, sampler)
    summary = summarize_run(
        config=config,
        prepared=prepared,
        figures=phase.fitted.figures,
        ranks=ranks,
        state=state,
        evaluated=(round_, variables),
        history=recorder.history,
        traffic=traffic,
        clock=recorder.seconds,
    )
    if folder is not None:
        valid_clients = evaluator.clients("valid")
        table = per_user_table(prepared.dataset, prepared.split, ranks, valid_clients)
        folder.write_per_user(table)
        folder.write_summary(summary)
    return RunResult(summary, variables, state)


def _diverged(state: RunState, recorder: Recorder) -> None:
    """Saves the last finite model and raises DivergedError."""
    where = ""
    if recorder.folder is not None:
        recorder.folder.save_variables("last_finite", variables_of(state))
        where = f"; {recorder.folder.path} holds everything up to the round before it"
    raise DivergedError(
        f"round {state.round + 1} gave a non-finite update: lower the learning rate of "
        f"`client_optimizer` or `server_optimizer`{where}"
    )
