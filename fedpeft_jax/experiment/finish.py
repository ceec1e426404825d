"""Evaluates the model after the last round, and writes the results of a run."""

from collections.abc import Sequence
from typing import Any

from fedpeft_jax.core.typing import Variables
from fedpeft_jax.evaluation import Evaluator, ScoreFn
from fedpeft_jax.evaluation.per_user import per_user_table
from fedpeft_jax.experiment.config import RunConfig
from fedpeft_jax.experiment.phases import Phase
from fedpeft_jax.experiment.preparation import Prepared
from fedpeft_jax.experiment.privacy_plan import PrivacyPlan
from fedpeft_jax.experiment.recorder import Recorder
from fedpeft_jax.experiment.state import RunState, variables_of
from fedpeft_jax.experiment.summary import rank_all, summarize_run
from fedpeft_jax.experiment.traffic import PhaseTraffic

_STEPS = 500  # most reports of the progress of an evaluation, which has many blocks


def finish(
    *,
    config: RunConfig,
    prepared: Prepared,
    phase: Phase,
    score: ScoreFn,
    state: RunState,
    traffic: Sequence[PhaseTraffic],
    evaluator: Evaluator,
    recorder: Recorder,
    privacy: PrivacyPlan | None = None,
) -> tuple[dict[str, Any], Variables]:
    """Ranks the held-out items, and writes the model and the summary.

    Args:
      config: the configuration.
      prepared: data and pretraining.
      phase: the last phase that ran.
      score: the score function of its model.
      state: the state after the last round.
      traffic: the bytes of each phase that ran.
      evaluator: evaluator of the split.
      recorder: the clock, the history and the folder of the run.
      privacy: the privacy of the run; None for none.

    Returns:
      The summary, and the variables of the model that was ranked.

    Raises:
      StoppedError: if a signal asked the run to stop; its state is saved.
    """
    round_, variables = state.round, variables_of(state)
    if config.evaluation.early_stopping_rounds and state.best.variables is not None:
        round_, variables = int(state.best.round), state.best.variables
    folder = recorder.folder
    if folder is not None:
        folder.save_variables("final", variables)
    with recorder.time("evaluate_s"):
        sampler = phase.algorithm.training.sampler

        def progress(done: int, total: int) -> None:
            if done * _STEPS // total > (done - 1) * _STEPS // total:
                recorder.callbacks.progress("evaluate", done, total)
            if done < total:
                recorder.check_stop(state)  # the same run then evaluates again

        ranks = rank_all(
            config, prepared, evaluator, score, variables, sampler, progress
        )
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
        privacy=privacy,
    )
    if folder is not None:
        valid_clients = evaluator.clients("valid")
        table = per_user_table(prepared.dataset, prepared.split, ranks, valid_clients)
        folder.write_per_user(table)
        folder.write_summary(summary)
    return summary, variables
