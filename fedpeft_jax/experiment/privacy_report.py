"""What a run says of its privacy: notes, the summary, and lines below the table."""

import math
from collections.abc import Iterable, Mapping
from typing import Any

from fedpeft_jax.core.sampling import PoissonCohorts
from fedpeft_jax.experiment.config import RunConfig
from fedpeft_jax.experiment.privacy_plan import PrivacyPlan, plan_privacy
from fedpeft_jax.experiment.state import RunState

_ADJACENCY = {
    "add_or_remove_one": "one client joins or leaves",
    "replace_one": "the data of one client is replaced",
}
_PROTECTED = {
    "central": (
        "all data of a client, from everybody who receives the server's variables"
    ),
    "local": (
        "all data of a client, from the server and everybody else; not that the client "
        "takes part"
    ),
}
_NOT_PROTECTED = {
    "central": "the server is trusted: it sees every update before the noise",
    "local": "the server sees which clients take part in a round",
}
_NEVER = (
    "private parameters stay on the clients; item text, frozen tables and codes are "
    "public, and so is the list of items",
    "metrics, and the figures of rounds such as the clipped share, are computed "
    "without noise for the research: epsilon does not cover them",
)


def privacy_notes(config: RunConfig, num_clients: int) -> list[str]:
    """Returns what a run says of its privacy before its first round.

    Args:
      config: the configuration.
      num_clients: U, the number of clients.
    """
    plan = plan_privacy(config, num_clients)
    if plan is None:
        return []
    found, delta = describe(plan, plan.allowed), plan.accountant.delta
    notes = [
        f"privacy: {_mechanism(found)}; after {plan.allowed} rounds {_guarantee(found)}"
    ]
    if delta * num_clients >= 1:
        notes.append(
            f"delta={delta:g} is not below 1 / {num_clients}, so that epsilon would "
            "allow to publish the data of a client: lower `delta`"
        )
    return notes


def describe(plan: PrivacyPlan, rounds: int) -> dict[str, Any]:
    """Returns the guarantee of a run after some rounds, for its summary.

    Args:
      plan: the privacy of the run.
      rounds: the number of rounds.
    """
    mechanism, accountant = plan.mechanism, plan.accountant
    clip, epsilon = mechanism.clip, plan.epsilon(rounds)
    found = {
        "mechanism": mechanism.name,
        "model": accountant.model,
        "noise_multiplier": mechanism.noise_multiplier,
        "clip": clip if math.isfinite(clip) else None,
        "epsilon": epsilon if math.isfinite(epsilon) else None,
        "delta": accountant.delta,
        "adjacency": accountant.adjacency,
        "rounds": rounds,
        "cohort": (
            "poisson" if isinstance(accountant.sampling, PoissonCohorts) else "fixed"
        ),
    }
    if accountant.model == "local":
        found["participations"] = int(plan.releases[rounds])
    return {
        **found,
        "protects": _PROTECTED[accountant.model],
        "does_not_protect": [_NOT_PROTECTED[accountant.model], *_NEVER],
    }


def summarize_privacy(
    plan: PrivacyPlan | None, state: RunState
) -> dict[str, Any] | None:
    """Returns the `privacy` part of a run's summary; None for a run without privacy.

    Args:
      plan: the privacy of the run.
      state: the state after the last round, which holds an adaptive clip.
    """
    if plan is None:
        return None
    found = describe(plan, state.round)
    if plan.mechanism.adaptive is not None:
        found["last_clip"] = float(state.rounds.release.clip)
    return found


def privacy_lines(privacy: Mapping[str, Any] | None) -> Iterable[str]:
    """Yields what the output of a finished run says of its privacy.

    Args:
      privacy: the `privacy` part of a summary.

    Example:
      >>> list(privacy_lines(None))
      []
    """
    if privacy is None:
        return
    yield (
        f"privacy: {_guarantee(privacy)}; {_mechanism(privacy)}, "
        f"{privacy['rounds']} rounds"
    )
    if privacy["epsilon"] is not None:
        yield f"  it protects {privacy['protects']}"
        for text in privacy["does_not_protect"]:
            yield f"  {text}"


def _guarantee(privacy: Mapping[str, Any]) -> str:
    if privacy["epsilon"] is None:
        why = "too little" if privacy["noise_multiplier"] else "no"
        return f"no guarantee, because there is {why} noise"
    what = _ADJACENCY[privacy["adjacency"]]
    return f"epsilon {privacy['epsilon']:.3g}, delta {privacy['delta']:g} if {what}"


def _mechanism(privacy: Mapping[str, Any]) -> str:
    clip = "none" if privacy["clip"] is None else f"{privacy['clip']:.3g}"
    if "last_clip" in privacy:
        clip += f" to {privacy['last_clip']:.3g}"
    taken = privacy.get("participations")
    most = "" if taken is None else f", at most {taken} participations of a client"
    return (
        f"{privacy['mechanism']} noise, {privacy['model']} model, noise multiplier "
        f"{privacy['noise_multiplier']:.4g}, clip {clip}, {privacy['cohort']} "
        f"cohorts{most}"
    )
