"""The settings of differential privacy, and checks that they fit a run."""

import dataclasses

from fedpeft_jax.backbones import statistics_of
from fedpeft_jax.core.errors import InputError
from fedpeft_jax.core.sampling import FixedCohorts, PoissonCohorts
from fedpeft_jax.core.settings import setting
from fedpeft_jax.core.specs import name_of
from fedpeft_jax.embeddings import ItemEmbedding
from fedpeft_jax.experiment.plugins import factories_of, factory_of
from fedpeft_jax.experiment.settings import (
    EvaluationSettings,
    ModelSettings,
    ServerSettings,
    TrainingSettings,
)
from fedpeft_jax.privacy.events import (
    check_accountable,
    default_adjacency,
    import_dp_accounting,
)
from fedpeft_jax.privacy.mechanisms import Mechanism

_FIXED = FixedCohorts(9, 1)


@dataclasses.dataclass(frozen=True, kw_only=True)
class PrivacySettings:
    """The mechanism of a run, and the guarantee that it shall give."""

    privacy: str = setting(
        "none", "mechanism of differential privacy, a spec; 'none' for none"
    )
    privacy_model: str = setting(
        "central",
        "who adds the noise: the server to the sum of a cohort, which it is trusted to "
        "do, or every client to its own update",
        choices=("central", "local"),
    )
    adjacency: str | None = setting(
        None,
        "what epsilon compares: data sets that differ by one client more or less, or "
        "in the data of one client; by default add_or_remove_one for Poisson cohorts "
        "of the central model, else replace_one",
        choices=("add_or_remove_one", "replace_one"),
    )
    delta: float = setting(
        1e-5, "probability with which epsilon need not hold", above=0, below=1
    )
    target_epsilon: float | None = setting(
        None,
        "epsilon of the whole run, from which the noise follows; instead of a "
        "noise_multiplier",
        above=0,
        most=1e6,
    )
    max_epsilon: float | None = setting(
        None, "the run stops before epsilon exceeds this", above=0, most=1e6
    )


def make_mechanism(settings: PrivacySettings) -> Mechanism | None:
    """Returns the mechanism of a run; None for a run without differential privacy.

    Args:
      settings: the settings of differential privacy.

    Raises:
      InputError: for a spec that cannot be read or built.

    Example:
      >>> make_mechanism(PrivacySettings(privacy="gaussian(clip=0.5)")).clip
      0.5
    """
    found: Mechanism | None = factory_of("privacy", settings.privacy)()
    return found


def noises_each_client(settings: PrivacySettings, training: TrainingSettings) -> bool:
    """Returns whether every client's own noise has to be drawn.

    Under the local model the noises of a cohort add up, and their sum is drawn at once.
    Stages of `upload` that follow the noise do not commute with the sum. Each client
    then draws one number for every number of the dense update.

    Args:
      settings: the settings of differential privacy.
      training: the settings of the clients.
    """
    return (
        settings.privacy != "none"
        and settings.privacy_model == "local"
        and training.upload != "identity"
    )


def check_privacy(
    settings: PrivacySettings,
    training: TrainingSettings,
    server: ServerSettings,
    evaluation: EvaluationSettings,
    model: ModelSettings,
) -> None:
    """Raises InputError for settings whose privacy cannot be accounted.

    Args:
      settings: the settings of differential privacy.
      training: resolved settings of the clients.
      server: resolved settings of the server.
      evaluation: the settings of the evaluation.
      model: the settings of the recommender.
    """
    mechanism = make_mechanism(settings)
    if mechanism is None:
        for name in ("target_epsilon", "max_epsilon", "adjacency"):
            if (value := getattr(settings, name)) is not None:
                raise InputError(
                    f"`{name}={value}` has no effect with `privacy=none`: set "
                    "`privacy=gaussian`, or leave it out"
                )
        return
    given = f"`privacy={settings.privacy}`"
    # The kind of the cohorts decides what an accountant takes, and not their size.
    sampling = PoissonCohorts(9, 0.1) if server.cohort == "poisson" else _FIXED
    adjacency = settings.adjacency or default_adjacency(
        settings.privacy_model, sampling
    )
    check_accountable(mechanism.name, settings.privacy_model, sampling, adjacency)
    import_dp_accounting()
    if mechanism.noise_multiplier is None and settings.target_epsilon is None:
        raise InputError(
            f"{given} has no noise: give it a noise_multiplier, or set `target_epsilon`"
        )
    if mechanism.noise_multiplier is not None and settings.target_epsilon is not None:
        raise InputError(
            f"{given} and `target_epsilon={settings.target_epsilon}` both determine "
            "the noise: leave one of them out"
        )
    if mechanism.adaptive is not None and settings.privacy_model == "local":
        raise InputError(
            f"{given} has a quantile, which only the server of the central model can "
            "follow: leave it out, or set `privacy_model=central`"
        )
    if name_of(server.aggregator) != "mean":
        raise InputError(
            f"{given} bounds what a client adds to a plain sum, and "
            f"`aggregator={server.aggregator}` uses more than that: set "
            "`aggregator=mean`"
        )
    if training.client_weights != "uniform":
        raise InputError(
            f"{given} needs clients of the same weight: set `client_weights=uniform`, "
            "or leave it out"
        )
    if evaluation.early_stopping_rounds:
        raise InputError(
            f"`early_stopping_rounds={evaluation.early_stopping_rounds}` chooses the "
            f"result by a validation without noise, which {given} does not account "
            "for: set `early_stopping_rounds=0`"
        )
    backbone = factory_of("backbone", model.backbone)
    released = statistics_of(backbone(item_embedding=ItemEmbedding(1, 1)))
    for statistic, other in released.items():
        raise InputError(
            f"`backbone={model.backbone}` needs {statistic}, which the server would "
            f"learn without noise in spite of {given}: use `backbone={other}`"
        )
    if settings.privacy_model == "local":
        for stage in factories_of("upload", training.upload):
            if stage().touched_rows:
                raise InputError(
                    f"`upload={training.upload}` reveals which items a client touched, "
                    "in spite of `privacy_model=local`: leave out `rows`"
                )
