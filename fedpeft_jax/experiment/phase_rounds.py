"""Trains one phase of a run: rounds, validations, checkpoints, early stopping."""

import math
from collections.abc import Callable, Sequence

import numpy as np

from fedpeft_jax.core.errors import DivergedError
from fedpeft_jax.core.roles import FROZEN, num_bytes
from fedpeft_jax.core.typing import Variables
from fedpeft_jax.evaluation import Evaluator
from fedpeft_jax.experiment.communication import catch_up_bytes, moving_bytes
from fedpeft_jax.experiment.config import RunConfig
from fedpeft_jax.experiment.divergence import MOST_LOSS, diverged_round
from fedpeft_jax.experiment.early_stopping import should_stop, update_best
from fedpeft_jax.experiment.phases import Phase
from fedpeft_jax.experiment.privacy_plan import PrivacyPlan
from fedpeft_jax.experiment.recorder import Recorder
from fedpeft_jax.experiment.state import RunState, variables_of
from fedpeft_jax.experiment.summary import valid_ndcg
from fedpeft_jax.experiment.traffic import PhaseTraffic
from fedpeft_jax.experiment.training import Program, advance

Validate = Callable[[Program, Variables, Evaluator], dict[str, dict[str, float]]]
"""Returns validation metrics by ranking, as `training.evaluate` does."""


def train_phase(
    config: RunConfig,
    phase: Phase,
    program: Program,
    state: RunState,
    traffic: Sequence[PhaseTraffic],
    evaluator: Evaluator,
    validate: Validate,
    recorder: Recorder,
    privacy: PrivacyPlan | None = None,
) -> tuple[RunState, bool]:
    """Runs the rounds of a phase that are left.

    Args:
      config: the configuration.
      phase: the phase.
      program: the program of the phase.
      state: the state, in this phase.
      traffic: the bytes of each phase so far, this one included.
      evaluator: evaluator of the split.
      validate: a function that measures the model between rounds.
      recorder: the recorder of the run.
      privacy: the privacy of the run; None for none.

    Returns:
      The state after the phase, and whether the run stops early.

    Raises:
      DivergedError: if an update is not finite, or the loss is that of no healthy run.
      StoppedError: if a signal asked the run to stop; its state is saved.
    """
    total, eval_every = config.run.rounds, config.evaluation.eval_every
    every = config.run.checkpoint_every
    patience = config.evaluation.early_stopping_rounds if phase.main else 0
    shown: dict[str, float] = {}
    while True:
        first = state.round
        if first % eval_every == 0 and should_stop(state.best, first, patience):
            recorder.callbacks.note(
                f"stopped after round {first}: validation NDCG@10 was best at "
                f"round {int(state.best.round)}"
            )
            return state, True
        if first >= phase.stop:
            return state, False
        if privacy is not None and first >= privacy.allowed:
            recorder.callbacks.note(
                f"stopped after round {first}: the next one would exceed "
                f"`max_epsilon={config.privacy.max_epsilon}`"
            )
            return state, True
        recorder.check_stop(state)
        due = [(first // n + 1) * n for n in (eval_every, every) if n]
        if privacy is not None:
            due.append(privacy.allowed)
        done = min(phase.stop, first + program.clients.chunk, *due)
        with recorder.time("rounds_s"):
            state, report = advance(program, state, done - first)
            losses, finite = np.asarray(report.losses), bool(report.finite)
        if not finite:
            _diverged(config, state, recorder)
        wrong = diverged_round(losses[: done - first], config.training.loss)
        if wrong is not None:
            _loss_diverged(first + wrong + 1, float(losses[wrong]), recorder)
        loss = float(losses[done - first - 1])
        for name, values in report.figures.items():
            recorder.pending.setdefault(name, []).extend(
                values[: done - first].tolist()
            )
        improved = False
        ends = {total, total if privacy is None else privacy.allowed}
        if done % eval_every == 0 or done in ends:
            with recorder.time("evaluate_s"):
                metrics = validate(program, variables_of(state), evaluator)
            entry = recorder.validation(
                {
                    "round": done,
                    "phase": phase.name,
                    "loss": loss if math.isfinite(loss) else None,
                    "metrics": {"valid": metrics} if metrics else {},
                    "bytes": _bytes_so_far(state, traffic),
                    **({} if privacy is None else {"privacy": privacy.entry(done)}),
                }
            )
            value = valid_ndcg(entry)
            if metrics:
                shown = {"valid NDCG@10": value}
            if privacy is not None:
                shown["epsilon"] = privacy.epsilon(done)
            if phase.main:
                kept = variables_of(state) if patience else None
                best = update_best(state.best, done, value, kept)
                improved = bool(metrics) and int(best.round) == done
                state = state._replace(best=best)
        seen = {"loss": loss} if math.isfinite(loss) else {}
        recorder.progress(done, total, **seen, **shown)
        if every and (improved or done % every == 0):
            recorder.checkpoint(state)


def _bytes_so_far(state: RunState, traffic: Sequence[PhaseTraffic]) -> int:
    """Returns the bytes of all rounds, of the frozen tables, and of merged factors."""
    once = num_bytes({FROZEN: state.frozen}) * int(state.took_part.sum())
    counts = state.phase_clients, state.phase_answers, state.phase_touched
    catch_up = catch_up_bytes(traffic[-1], state.phase_missed.tolist())
    return moving_bytes(traffic, *(x.tolist() for x in counts)) + once + catch_up


def _diverged(config: RunConfig, state: RunState, recorder: Recorder) -> None:
    """Saves the last finite model and raises DivergedError."""
    where = drop = ""
    if config.server.on_nonfinite == "stop":
        drop = ", or leave out such updates with `on_nonfinite=drop`"
    if recorder.folder is not None:
        recorder.folder.save_variables("last_finite", variables_of(state))
        where = f"; {recorder.folder.path} holds everything up to the round before it"
    raise DivergedError(
        f"round {state.round + 1} gave a non-finite update: lower the learning rate of "
        f"`client_optimizer` or `server_optimizer`{drop}{where}"
    )


def _loss_diverged(round_: int, loss: float, recorder: Recorder) -> None:
    """Raises DivergedError; the checkpoints of the rounds before are left as they are.

    The state of the round before is gone, because the rounds were given its arrays.
    """
    where = ""
    if recorder.folder is not None:
        where = f"; {recorder.folder.path} holds what was written before"
    raise DivergedError(
        f"training diverged: the loss of round {round_} is {loss:.3g}, above "
        f"{MOST_LOSS:g}: lower the learning rate of `client_optimizer`, "
        f"`private_optimizer` or `server_optimizer`{where}"
    )
