"""What the settings of a run may be: ranges, words, and what goes together."""

import dataclasses
import math
from typing import TYPE_CHECKING

from fedpeft_jax.errors import InputError

if TYPE_CHECKING:
    from fedpeft_jax.config import RunConfig


def check_settings(config: "RunConfig") -> None:
    """Raises InputError for a value that no run can use."""
    for field in dataclasses.fields(config):
        value, choices = getattr(config, field.name), field.metadata["choices"]
        if choices and value not in choices:
            raise InputError(
                f"{field.name}={value!r} is not known: use one of {', '.join(choices)}"
            )
        least = field.metadata["least"]
        if least is not None and value < least:
            raise InputError(
                f"{field.name}={value} is too small: it must be at least {least}"
            )
    if not 0 < config.cohort_fraction <= 1:
        raise InputError(
            f"cohort_fraction={config.cohort_fraction} is no share: "
            "it must be above 0 and at most 1"
        )
    if not 0 <= config.proximal < math.inf:
        raise InputError(f"proximal={config.proximal} must be at least 0 and finite")
    if config.full == "none" and config.full_init != "text":
        raise InputError("full_init has no effect with full=none: leave it out")
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
