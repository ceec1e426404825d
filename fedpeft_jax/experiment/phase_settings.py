"""Checks of the settings of a run's phases: the warm-up, and merges after it."""

from fedpeft_jax.core.errors import InputError
from fedpeft_jax.experiment.build import embedding_can_restart
from fedpeft_jax.experiment.run_settings import RunSettings
from fedpeft_jax.experiment.settings import ModelSettings


def check_phase_settings(model: ModelSettings, run: RunSettings) -> None:
    """Raises InputError for a warm-up or merges that cannot be.

    Args:
      model: resolved settings of the recommender.
      run: resolved settings of the run.

    Example:
      >>> model = ModelSettings(latent_scale=1.0)
      >>> check_phase_settings(model, RunSettings(warm_up_rounds=20, merge_every=50))
      >>> check_phase_settings(
      ...     model, RunSettings(rounds=10, warm_up_rounds=20, merge_every=0)
      ... )
      Traceback (most recent call last):
      ...
      fedpeft_jax.InputError: `warm_up_rounds=20` is more than `rounds=10`: set
      `warm_up_rounds` to at most 10
    """
    adapter = model.full == "frozen" and model.embedding != "none"
    warm_up = run.warm_up_rounds
    if warm_up > run.rounds:
        raise InputError(
            f"`warm_up_rounds={warm_up}` is more than `rounds={run.rounds}`: set "
            f"`warm_up_rounds` to at most {run.rounds}"
        )
    if warm_up and model.full != "frozen":
        raise InputError(
            f"`warm_up_rounds={warm_up}` has no meaning with `full={model.full}`: set "
            "`warm_up_rounds=0`, or `full=frozen`"
        )
    if run.merge_every and not adapter:
        raise InputError(
            f"`merge_every={run.merge_every}` needs a compressed embedding beside a "
            f"frozen table, and not `full={model.full}` with "
            f"`embedding={model.embedding}`: set `merge_every=0`"
        )
    if run.merge_every and not embedding_can_restart(model):
        raise InputError(
            f"`embedding={model.embedding}` cannot start anew after a merge: set "
            "`merge_every=0`, or give it a method `restart`"
        )
