"""Audits the privacy of a run: the accountant's epsilon, and a lower bound of it.

    fedpeft-jax audit --privacy='gaussian(noise_multiplier=2.0)' --canaries=500

The command trains the configured run with canaries among its clients. Nothing is
evaluated, and no folder is written. Every setting of `run.py` applies.
"""

import contextlib
import textwrap

from absl import flags

from fedpeft_jax.experiment import ConsoleReporter, cli, configure
from fedpeft_jax.experiment.audit import Audit, audit

_MEANING = (
    "A canary is a client whose training returns a random direction. A fair coin "
    "decided which canaries were in, and how well the released sums tell these from "
    "the others bounds epsilon from below. {verdict} An audit looks for mistakes and "
    "proves no privacy: a stronger attack could find a larger bound."
)
_AGREES = (
    "The lower bound is below the accountant's epsilon, as it must be: the audit found "
    "no mistake in the bound of the updates, the noise or the accounting."
)
_CONTRADICTS = (
    "The lower bound is above the accountant's epsilon. If another --seed shows the "
    "same, the updates are not bounded, the noise is too small, or epsilon is computed "
    "for another mechanism: do not rely on it."
)


def define_flags() -> None:
    """Defines the flags of the command."""
    cli.define_flags(leave_out=("out", "resume"))
    flags.DEFINE_integer("canaries", 500, "number of clients that are added")
    flags.DEFINE_float(
        "significance", 0.05, "probability with which a lower bound may be wrong"
    )
    flags.DEFINE_bool(
        "alone", False, "let all other clients send zeros, which gives a closer bound"
    )


def describe(found: Audit) -> str:
    """Returns what an audit found, in words.

    Args:
      found: the result of `audit`.
    """
    gaussian = found.epsilon_gaussian
    bound = max(found.epsilon_lower_bound, gaussian or 0.0)
    num_in, num_out = len(found.in_scores), len(found.out_scores)
    lines = [
        f"accountant: epsilon {found.epsilon_accountant:.3g}, delta {found.delta:g}, "
        f"{found.adjacency}, {found.rounds} rounds",
        f"audit: epsilon is at least {found.epsilon_lower_bound:.3g} "
        f"({1 - found.significance:.0%} confidence), from {num_in} canaries that were "
        f"in and {num_out} that were out",
    ]
    if gaussian is not None:
        lines.append(
            f"  at least {gaussian:.3g}, since the run as a whole is one Gaussian "
            "mechanism"
        )
    holds = bound <= found.epsilon_accountant
    meaning = _MEANING.format(verdict=_AGREES if holds else _CONTRADICTS)
    return "\n".join([*lines, "", textwrap.fill(meaning, 80)])


def main(argv: list[str]) -> int:
    """Audits the run that the flags select and returns the exit code."""

    def work() -> None:
        config = configure(**cli.settings_from_flags())
        given = flags.FLAGS
        with contextlib.closing(ConsoleReporter()) as console:
            found = audit(
                config,
                given.canaries,
                significance=given.significance,
                alone=given.alone,
                callbacks=[console],
            )
        print(describe(found))

    return cli.exit_code(work, argv)
