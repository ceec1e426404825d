"""The configuration of a run: what the user gave, resolved once into plain settings.

`configure` is the only way to make a configuration. It fills in what was left out,
checks that the settings fit together and builds every plugin once, so that a bad
setting ends a run before it starts. All later parts read the result, and `config.json`
holds it.
"""

import dataclasses
import difflib
from collections.abc import Mapping
from typing import Any

from fedpeft_jax.core.errors import InputError, brief
from fedpeft_jax.core.settings import check_fields, plain
from fedpeft_jax.data import check_source
from fedpeft_jax.experiment.build import (
    check_plugins,
    embedding_can_restart,
    suggestions_of,
)
from fedpeft_jax.experiment.earlier import EARLIER
from fedpeft_jax.experiment.evaluation_checks import check_evaluation
from fedpeft_jax.experiment.phase_settings import check_phase_settings
from fedpeft_jax.experiment.privacy_settings import check_privacy
from fedpeft_jax.experiment.run_config import FIELDS, GROUPS, RunConfig
from fedpeft_jax.experiment.run_settings import WARM_UP_ROUNDS


def configure(**given: Any) -> RunConfig:
    """Returns the configuration of a run.

    Args:
      **given: settings by name, see `FIELDS`. A setting that is None or left out gets
        the value that the recommender suggests, otherwise the one that the embedding
        suggests, and otherwise a default.

    Raises:
      InputError: for an unknown name, a value that is not allowed, or settings that do
        not fit together.

    Example:
      >>> config = configure(embedding="lora(rank=8)")
      >>> config.run.warm_up_rounds, config.server.shared_server_optimizer
      (20, 'sgd(learning_rate=5.0)')
      >>> configure(full="trained", embedding="none").run.warm_up_rounds
      0
    """
    for name in given:
        if name not in FIELDS:
            near = difflib.get_close_matches(name, FIELDS, 1)
            hint = f"did you mean `{near[0]}`?" if near else "check its name"
            raise InputError(f"there is no setting {brief(name)}: {hint}")
    config = _grouped({k: plain(v) for k, v in given.items() if v is not None})
    _check_fields(config)
    config = _resolve(config)
    _check_fields(config)  # a plugin may suggest a value that is not allowed
    _check(config)
    check_plugins(config.model, config.training, config.server, config.text)
    check_privacy(
        config.privacy,
        config.training,
        config.server,
        config.evaluation,
        config.model,
    )
    return config


def restore(values: Mapping[str, Any]) -> RunConfig:
    """Returns the configuration of a run that is read, from its `config.json`.

    The data set need not be one that can be read here. A setting that is not among the
    values, because an older version wrote them, has its default.

    Args:
      values: the result of `RunConfig.flat`.

    Raises:
      InputError: for a name or a value that is not allowed.

    Example:
      >>> given = configure(rounds=30)
      >>> restore(given.flat()) == given
      True
    """
    for name in values:
        if name not in FIELDS:
            raise InputError(
                f"there is no setting {name!r}: another version wrote the run, use that"
            )
    values = {**EARLIER, **values}
    config = _grouped({k: v for k, v in values.items() if v is not None})
    _check_fields(config)
    config = _resolve(config)
    check_plugins(config.model, config.training, config.server, config.text)
    return config


def _grouped(values: dict[str, Any]) -> RunConfig:
    """Returns settings in their groups; a setting that is left out has its default."""
    groups = {
        name: group(
            **{
                field.name: values[field.name]
                for field in dataclasses.fields(group)
                if field.name in values
            }
        )
        for name, group in GROUPS.items()
    }
    return RunConfig(**groups)


def _check_fields(config: RunConfig) -> None:
    for name in GROUPS:
        check_fields(getattr(config, name))


def _resolve(config: RunConfig) -> RunConfig:
    """Fills in every setting that was left out."""
    model, values = config.model, config.flat()
    if not config.has_adapter:
        values["warm_up_rounds"] = values["warm_up_rounds"] or 0
    if not (config.has_adapter and embedding_can_restart(model)):
        values["merge_every"] = values["merge_every"] or 0
    if values["merge_every"] is None:
        every = suggestions_of(model, merging=True).merge_every
        values["merge_every"] = every or 0
    suggested = suggestions_of(model, merging=values["merge_every"] > 0)
    random = config.has_random_table
    if random:
        suggested = suggested._replace(latent_scale=None)  # it is for text
    if values["cohort_fraction"] is not None:
        suggested = suggested._replace(cohort_size=None)  # a given fraction wins
    private = config.privacy.privacy != "none"
    defaults = {
        "cohort": "poisson" if private else "fixed",
        "client_weights": "uniform" if private else "positives",
        "latent_scale": 0.1 if random else 0.5 if model.full == "trained" else 1.0,
        "aggregator": "sparse_row_mean" if random and not private else "mean",
        "warm_up_rounds": WARM_UP_ROUNDS,
        "client_optimizer": "adam(learning_rate=0.01)",
        "server_optimizer": "sgd(learning_rate=5.0)",
        "shared_server_optimizer": "sgd(learning_rate=1.0)",
        "cohort_fraction": 0.1,
    }
    for source in (suggested._asdict(), defaults):
        for name, value in source.items():
            if values[name] is None:
                values[name] = value
    if values["private_optimizer"] is None:
        values["private_optimizer"] = values["client_optimizer"]
    return _grouped(values)


def _check(config: RunConfig) -> None:
    """Raises InputError for settings that do not fit together."""
    model, run = config.model, config.run
    check_source(config.data)
    if model.full == "none" and model.full_init != "text":
        raise InputError("`full_init` has no effect with `full=none`: leave it out")
    check_evaluation(config.evaluation, config.baseline_names)
    patience = config.evaluation.early_stopping_rounds
    if patience and not config.data.valid_items:
        raise InputError(
            f"`early_stopping_rounds={patience}` needs validation items: set "
            "`valid_items=1`"
        )
    check_phase_settings(model, run)
    if config.text.text_embeddings is not None and not config.uses_text:
        raise InputError(
            f"`text_embeddings={config.text.text_embeddings}` has no effect with "
            f"`full={model.full}` and `full_init={model.full_init}`: leave it out"
        )
