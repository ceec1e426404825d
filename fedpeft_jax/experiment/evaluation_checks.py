"""Checks of the settings of the evaluation, which need no other setting."""

import dataclasses
from collections.abc import Sequence

from fedpeft_jax.core.errors import InputError, brief
from fedpeft_jax.evaluation import BASELINES
from fedpeft_jax.experiment.settings import EvaluationSettings


def check_evaluation(settings: EvaluationSettings, baselines: Sequence[str]) -> None:
    """Raises InputError for baselines or candidates that cannot be used.

    Args:
      settings: the settings of the evaluation.
      baselines: the names in `settings.baselines`.

    Example:
      >>> check_evaluation(EvaluationSettings(), ["random"])
      >>> check_evaluation(EvaluationSettings(), ["best"])
      Traceback (most recent call last):
      ...
      fedpeft_jax.InputError: `baselines`: 'best' is not known: use some of ...
    """
    for name in baselines:
        if name not in BASELINES:
            raise InputError(
                f"`baselines`: {brief(name)} is not known: use some of "
                f"{', '.join(BASELINES)}"
            )
    if len(set(baselines)) < len(baselines):
        raise InputError(
            f"`baselines={settings.baselines}` has a name twice: leave one out"
        )
    for field in dataclasses.fields(settings):
        value = getattr(settings, field.name)
        draws = field.name in ("num_candidates", "candidates")
        if settings.given_candidates and draws and value != field.default:
            raise InputError(
                f"`{field.name}={value}` has no effect with `given_candidates`: leave "
                "it out"
            )
