"""What the settings of a run may be: ranges, words, and what goes together."""

import math
from typing import TYPE_CHECKING

from fedpeft_jax.core.errors import InputError
from fedpeft_jax.evaluation.baselines import BASELINES

if TYPE_CHECKING:
    from fedpeft_jax.experiment.config import RunConfig


def check_settings(config: "RunConfig") -> None:
    """Raises InputError for a value that no run can use."""
    if not 0 < config.cohort_fraction <= 1:
        raise InputError(
            f"cohort_fraction={config.cohort_fraction} is no share: "
            "it must be above 0 and at most 1"
        )
    if not 0 <= config.proximal < math.inf:
        raise InputError(f"proximal={config.proximal} must be at least 0 and finite")
    if config.full == "none" and config.full_init != "text":
        raise InputError("full_init has no effect with full=none: leave it out")
    for name in config.baseline_names:
        if name not in BASELINES:
            raise InputError(
                f"baselines: {name!r} is not known: use some of {', '.join(BASELINES)}"
            )
    if config.early_stopping_rounds and not config.valid_items:
        raise InputError(
            f"early_stopping_rounds={config.early_stopping_rounds} needs validation "
            "items: set --valid_items=1"
        )
    if not 0 <= config.warm_up <= config.rounds:
        raise InputError(
            f"warm_up_rounds={config.warm_up} is not within rounds={config.rounds}: "
            "set --warm_up_rounds"
        )
    if config.warm_up and config.full != "frozen":
        raise InputError(
            f"warm_up_rounds={config.warm_up} makes no sense with full={config.full}: "
            "only a table that is frozen afterwards is warmed up"
        )
    if not 0 < config.value("latent_scale") < math.inf:
        raise InputError(
            f"latent_scale={config.latent_scale} must be above 0 and finite"
        )


def check_text(config: "RunConfig") -> None:
    """Raises InputError for text embeddings that nothing would read."""
    if config.text_embeddings is not None and not config.uses_text:
        raise InputError(
            f"text_embeddings={config.text_embeddings!r} has no effect with "
            f"full={config.full}, full_init={config.full_init}: leave it out"
        )
