"""What one release of a run is, as an event of the package dp-accounting.

A release is one noisy sum (or, under local privacy, one noisy update of one client).
This file says which accountant of dp-accounting takes the release, under which relation
between neighbouring data sets, and with which noise multiplier.

Adjacency says which two data sets a guarantee compares. Both kinds are at the level of
users: the data sets differ in one client's whole data, never in one interaction.

- `add_or_remove_one`: one client is in the data of one set and not in the other. The
  sum of clipped updates changes by at most C, the clip.
- `replace_one`: one client's whole data is replaced by any other data. The sum changes
  by at most 2C, so the same noise gives a weaker epsilon.
"""

from typing import Any, NamedTuple

from fedpeft_jax.core.errors import InputError, brief
from fedpeft_jax.core.sampling import CohortSampling, PoissonCohorts, check_sampling

MECHANISMS = ("gaussian", "laplace")
MODELS = ("central", "local")
ADJACENCIES = ("add_or_remove_one", "replace_one")


class Release(NamedTuple):
    """One release, as dp-accounting takes it.

    Attributes:
      accountant: 'pld' (privacy loss distributions), 'rdp' (Renyi differential privacy)
        or 'gaussian' (the closed form of Gaussian noise without sampling).
      relation: name of a member of `dp_accounting.NeighboringRelation`.
      event: a `dp_accounting.DpEvent`.
    """

    accountant: str
    relation: str
    event: Any


def default_adjacency(model: str, sampling: CohortSampling) -> str:
    """Returns the adjacency that a run states unless the user asks for another one.

    It is the adjacency under which the accountant is tight.

    Args:
      model: 'central' or 'local'.
      sampling: how cohorts are drawn.

    Example:
      >>> default_adjacency("central", PoissonCohorts(num_clients=9, rate=0.5))
      'add_or_remove_one'
    """
    poisson = isinstance(sampling, PoissonCohorts)
    return "add_or_remove_one" if model == "central" and poisson else "replace_one"


def check_accountable(
    mechanism: str, model: str, sampling: CohortSampling, adjacency: str
) -> None:
    """Raises InputError for a combination that no accountant takes.

    Args:
      mechanism: 'gaussian' or 'laplace'.
      model: 'central' or 'local'.
      sampling: how cohorts are drawn.
      adjacency: 'add_or_remove_one' or 'replace_one'.

    Raises:
      InputError: a value is unknown, or the combination cannot be accounted. The
        message names a combination that can.

    Example:
      >>> poisson = PoissonCohorts(num_clients=9, rate=0.5)
      >>> check_accountable("gaussian", "local", poisson, "add_or_remove_one")
      Traceback (most recent call last):
      ...
      fedpeft_jax.InputError: under the local model the server sees who takes part, so
      that adding or removing a client cannot be hidden: set `adjacency=replace_one`
    """
    for name, value, known in (
        ("privacy", mechanism, MECHANISMS),
        ("privacy_model", model, MODELS),
        ("adjacency", adjacency, ADJACENCIES),
    ):
        if value not in known:
            raise InputError(
                f"`{name}` is one of {', '.join(known)}, not {brief(value)}"
            )
    check_sampling(sampling)
    poisson = isinstance(sampling, PoissonCohorts)
    added = adjacency == "add_or_remove_one"
    if model == "local" and added:
        raise InputError(
            "under the local model the server sees who takes part, so that adding or "
            "removing a client cannot be hidden: set `adjacency=replace_one`"
        )
    if model == "central" and not poisson and added:
        raise InputError(
            "cohorts of a fixed size are accounted under replace-one only: set "
            "`cohort=poisson` or `adjacency=replace_one`"
        )
    if mechanism == "laplace" and _is_sampled(model, sampling) and not added:
        remedy = "`adjacency=add_or_remove_one`" if poisson else "`cohort=poisson`"
        cohorts = "Poisson cohorts" if poisson else "cohorts of a fixed size"
        raise InputError(
            f"no accountant takes Laplace noise, {cohorts} and replace-one together: "
            f"set {remedy}, or take Gaussian noise"
        )


def one_release(
    mechanism: str,
    model: str,
    sampling: CohortSampling,
    adjacency: str,
    noise_multiplier: float,
) -> Release:
    """Returns one release of a run as an event of dp-accounting.

    Under the central model it is the noisy sum of one round. Under the local model it
    is the noisy update of one participation: the server sees who takes part, so that
    sampling amplifies nothing. Where everybody takes part in every round, there is no
    sampling either.

    Args:
      mechanism: 'gaussian' (noise of standard deviation z C on a sum of updates of L2
        norm at most C) or 'laplace' (scale z C, L1 norm at most C).
      model: 'central' or 'local'.
      sampling: the object that draws the cohorts.
      adjacency: 'add_or_remove_one' or 'replace_one'.
      noise_multiplier: z > 0, the noise relative to the clip C.

    Raises:
      InputError: the combination cannot be accounted, or dp-accounting is missing.

    Example:
      >>> poisson = PoissonCohorts(num_clients=9, rate=0.5)
      >>> one_release("laplace", "central", poisson, "add_or_remove_one", 2.0).event
      PoissonSampledDpEvent(sampling_probability=0.5,
      event=LaplaceDpEvent(noise_multiplier=2.0))
    """
    check_accountable(mechanism, model, sampling, adjacency)
    dp = import_dp_accounting()
    added = adjacency == "add_or_remove_one"
    if not _is_sampled(model, sampling):
        accountant = "gaussian" if mechanism == "gaussian" else "pld"
        relation = "ADD_OR_REMOVE_ONE" if added else "REPLACE_SPECIAL"
    else:
        accountant = "pld" if isinstance(sampling, PoissonCohorts) else "rdp"
        relation = "ADD_OR_REMOVE_ONE" if added else "REPLACE_ONE"
    z = event_noise(noise_multiplier, accountant, relation)
    event = dp.GaussianDpEvent(z) if mechanism == "gaussian" else dp.LaplaceDpEvent(z)
    if _is_sampled(model, sampling):
        if isinstance(sampling, PoissonCohorts):
            event = dp.PoissonSampledDpEvent(sampling.rate, event)
        else:
            event = dp.SampledWithoutReplacementDpEvent(
                sampling.num_clients, sampling.size, event
            )
    return Release(accountant, relation, event)


def event_noise(noise_multiplier: float, accountant: str, relation: str) -> float:
    """Returns the noise multiplier that an event of dp-accounting must carry.

    The only place that knows of the factor 2 of replace-one. Replacing a client changes
    a sum of clipped updates by up to 2C, so that noise of z C is z / 2 times what the
    sum can change by. The PLD accountant computes this change itself under REPLACE_ONE.
    The RDP accountant, the closed form, and REPLACE_SPECIAL (a client is replaced by
    one who sends zero) measure a change of C, and take z / 2.

    Args:
      noise_multiplier: z, the noise relative to the clip C.
      accountant: as in `Release`.
      relation: as in `Release`.

    Example:
      >>> event_noise(2.0, "pld", "REPLACE_ONE"), event_noise(2.0, "rdp", "REPLACE_ONE")
      (2.0, 1.0)
    """
    doubled_there = accountant == "pld" and relation == "REPLACE_ONE"
    as_given = relation == "ADD_OR_REMOVE_ONE" or doubled_there
    return noise_multiplier if as_given else noise_multiplier / 2


def import_dp_accounting() -> Any:
    """Returns the package dp-accounting, which is slow to import and optional.

    Raises:
      InputError: the package is not installed.
    """
    try:
        import dp_accounting
    except ImportError as error:
        raise InputError(
            "epsilon is computed by dp-accounting: pip install 'fedpeft_jax[dp]'"
        ) from error
    return dp_accounting


def _is_sampled(model: str, sampling: CohortSampling) -> bool:
    """Whether the server cannot know that a client took part in a round."""
    return model == "central" and not sampling.takes_everybody
