"""What runs that differ only in their seed say together: epsilon and warnings."""

from collections.abc import Sequence
from typing import Any

from fedpeft_jax.experiment import cli
from fedpeft_jax.experiment.warnings import protocol_warnings, warning_lines

Summary = dict[str, Any]
"""The content of a run's `summary.json`."""


def most_epsilon(summaries: Sequence[Summary]) -> str:
    """Returns the largest epsilon of some runs as text.

    Args:
      summaries: the summaries of a row, one per seed.

    Example:
      >>> most_epsilon([{"privacy": {"epsilon": 1.5}}, {"privacy": {"epsilon": 2.0}}])
      '2'
      >>> most_epsilon([{"privacy": None}])
      'none'
    """
    # An earlier version wrote no privacy, and an epsilon that is None is infinite.
    found = [(summary.get("privacy") or {}).get("epsilon") for summary in summaries]
    bounded = [epsilon for epsilon in found if epsilon is not None]
    return "none" if len(bounded) < len(found) else f"{max(bounded):.3g}"


def row_warnings(summaries: Sequence[Summary]) -> list[str]:
    """Returns one line per kind of warning, with the number of seeds that have it.

    Args:
      summaries: the summaries of a row, one per seed.

    Example:
      >>> warning = {"kind": "x", "message": "it is bad", "try": ["rounds=9"]}
      >>> row_warnings([{"warnings": []}, {"warnings": [warning]}])
      ['1 of 2 seeds: warning: it is bad: try --rounds=9']
    """
    lines: dict[str, list[str]] = {}
    for summary in summaries:
        found = summary.get("warnings")
        if found is None:  # an older version
            found = protocol_warnings(summary["protocol"])
        for kind, warning in {one["kind"]: one for one in found}.items():
            lines.setdefault(kind, []).extend(warning_lines({"warnings": [warning]}))
    total = len(summaries)
    return [
        cli.as_flags(
            f"{len(same)} of {total} seeds: {same[0]}" if total > 1 else same[0]
        )
        for same in lines.values()
    ]
