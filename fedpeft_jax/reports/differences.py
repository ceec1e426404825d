"""The table of differences of a report: every row against the reference row."""

from typing import NamedTuple

import numpy as np

from fedpeft_jax.experiment.pareto import ParetoRow
from fedpeft_jax.reports.collect import Collected, user_ndcg, user_table
from fedpeft_jax.reports.elements import Table
from fedpeft_jax.reports.statistics import (
    Difference,
    compare_seeds,
    compare_users,
    holm,
)

HOW_DIFFERENCES = (
    "Differences of the test NDCG@10 (sampled), for the seeds that both rows have. By "
    "user: the mean over the seeds of every user, with the 95 % interval of a paired "
    "bootstrap over users and the p value of a paired t test. By seed: the p value of "
    "a paired t test over seeds, which also covers how much training differs; it needs "
    "several seeds, and few seeds show little. The p values of a column are corrected "
    "for the number of rows (Holm); the intervals are not."
)


class _Compared(NamedTuple):
    """A row against the reference; what cannot be compared is None."""

    label: str
    seeds: int
    mean: float | None = None
    by_user: Difference | None = None
    by_seed: Difference | None = None


def differences(collected: Collected) -> Table:
    """Returns the paired comparison of every row with the reference.

    Args:
      collected: the runs.
    """
    own = _by_seed(collected.reference)
    found = [
        _compare(row, own)
        for row in collected.compared.rows
        if row is not collected.reference
    ]
    by_user = _p_values([row.by_user for row in found])
    by_seed = _p_values([row.by_seed for row in found])
    rows = []
    for row, *p_values in zip(found, by_user, by_seed, strict=True):
        users = row.by_user
        interval = f"{users.low:+.4f} to {users.high:+.4f}" if users else ""
        mean = "no common seed" if row.mean is None else f"{row.mean:+.4f}"
        rows.append((row.label, mean, interval, *p_values, str(row.seeds)))
    head = ("", "difference", "95 % interval", "p, by user", "p, by seed", "seeds")
    only_seeds = any(row.mean is not None and row.by_user is None for row in found)
    note = "Users have several test items, so that only seeds are compared."
    return Table(head, tuple(rows), note=note if only_seeds else "")


def _compare(
    row: ParetoRow, own: dict[int, tuple[float, np.ndarray | None]]
) -> _Compared:
    found = _by_seed(row)
    common = [seed for seed in found if seed in own]
    if not common:
        return _Compared(row.label, 0)
    totals = [[part[seed][0] for seed in common] for part in (found, own)]
    first, second = (
        [users for seed in common if (users := part[seed][1]) is not None]
        for part in (found, own)
    )
    known = len(first) == len(second) == len(common)
    by_user = compare_users(first, second) if known else None
    mean = float(np.mean(totals[0]) - np.mean(totals[1]))
    return _Compared(row.label, len(common), mean, by_user, compare_seeds(*totals))


def _by_seed(row: ParetoRow) -> dict[int, tuple[float, np.ndarray | None]]:
    """Returns the NDCG@10 of every seed, of all users and of each."""
    found = {}
    for run in row.runs:
        total = run.summary["metrics"]["test"]["sampled"]["ndcg@10"]
        users = user_ndcg(user_table(run))
        found[run.summary["config"]["seed"]] = (
            total,
            None if users is None else np.asarray(users),
        )
    return found


def _p_values(column: list[Difference | None]) -> list[str]:
    """Returns the corrected p values of a column as text, empty where there is none."""
    corrected = iter(holm([found.p_value for found in column if found]))
    return [_text(next(corrected)) if found else "" for found in column]


def _text(p_value: float) -> str:
    if p_value < 0.001:
        return "< .001"
    return f"{p_value:.3f}".lstrip("0")
