"""Reads everything that a report needs of runs and grids that have finished."""

import pathlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import polars as pl

from fedpeft_jax.core.errors import InputError
from fedpeft_jax.evaluation.metrics import ndcg
from fedpeft_jax.experiment.finished import FinishedRun, Missing, read_grids, read_runs
from fedpeft_jax.experiment.pareto import Comparison, ParetoRow, compare


class Collected(NamedTuple):
    """Runs that are compared in a report.

    Attributes:
      compared: the rows, which are runs that differ in nothing but the seed.
      reference: the row that the others are compared with.
      missing: the runs of grids that have no result.
    """

    compared: Comparison
    reference: ParetoRow
    missing: tuple[Missing, ...]


def collect(folders: Sequence[pathlib.Path], against: str | None = None) -> Collected:
    """Reads the runs in some folders.

    Args:
      folders: folders of runs and of grids.
      against: the label of the reference row, or a part of it that no other label has;
        None for Full if there is such a row, else the row with the most bytes.

    Raises:
      InputError: for a folder without finished runs, a damaged file, runs that cannot
        be compared, or an unknown reference.
    """
    if not folders:
        raise InputError("no runs are given: name folders of runs or of grids")
    alone = [folder for folder in folders if (folder / "config.json").exists()]
    grids = [folder for folder in folders if folder not in alone]
    runs, missing = read_grids(grids)
    # A run that was named must have finished; one inside a grid is left out.
    compared = compare([*read_runs(alone), *runs])
    return Collected(compared, _reference(compared, against), tuple(missing))


def _reference(compared: Comparison, against: str | None) -> ParetoRow:
    rows = compared.rows
    if against is None:
        return next((row for row in rows if row.is_reference), rows[-1])
    same = [row for row in rows if row.label == against]
    found = same or [row for row in rows if against in row.label]
    if len(found) != 1:
        labels = ", ".join(repr(row.label) for row in rows)
        many = "several rows have it" if found else "no row has it"
        raise InputError(f"--against={against!r}: {many}; the rows are {labels}")
    return found[0]


def user_table(run: FinishedRun) -> pl.DataFrame:
    """Returns the table `per_user.parquet` of a run.

    Args:
      run: the run.

    Raises:
      InputError: if it is missing or damaged.
    """
    path = run.folder / "per_user.parquet"
    try:
        return pl.read_parquet(path)
    except (OSError, pl.exceptions.PolarsError) as error:
        raise InputError(
            f"{path} cannot be read ({_brief(error)}): run {run.folder} again in a new "
            "folder"
        ) from None


def user_ndcg(users: pl.DataFrame, model: str = "model") -> np.ndarray | None:
    """Returns the test NDCG@10 (sampled) of every user.

    Args:
      users: the result of `user_table`.
      model: `'model'`, or the name of a baseline.

    Returns:
      float64[E]; None if the table has no ranks of the model, or if users have several
      test items.
    """
    names = [f"{model}_test_sampled_{part}" for part in ("above", "ties")]
    if any(name not in users.columns for name in names):
        return None
    if any(users[name].dtype.is_nested() for name in names):
        return None
    above, ties = (users[name].to_numpy() for name in names)
    return ndcg(above, ties, 10)


def _brief(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
