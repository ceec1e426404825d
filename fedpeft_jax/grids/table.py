"""The tidy table of a grid: one row per cell, with all settings and metrics.

The figures that a machine gives otherwise each time, seconds and memory, are the last
two columns. All other columns are the same whether or not the grid was stopped.
"""

import io
import math
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import polars as pl

from fedpeft_jax.core.errors import InputError
from fedpeft_jax.core.settings import kind_of
from fedpeft_jax.experiment import FIELDS
from fedpeft_jax.experiment.finished import read_summary
from fedpeft_jax.grids.ledger import FILE, Entry, read_ledger, write_atomically

MEASURED = ("seconds", "peak_bytes")
"""The columns that differ each time the same grid runs."""

_TYPES: dict[type, Any] = {
    str: pl.String,
    int: pl.Int64,
    float: pl.Float64,
    bool: pl.Boolean,
}
_ALWAYS = tuple(
    f"{target}_{ranking}_{metric}"
    for target in ("test", "valid")
    for ranking in ("sampled", "full")
    for metric in ("hit_rate@10", "ndcg@10")
)
_OTHERS: dict[str, Any] = {
    "best_valid_ndcg@10": pl.Float64,
    "best_valid_round": pl.Int64,
    "rounds_run": pl.Int64,
    "evaluated_round": pl.Int64,
    "total_bytes": pl.Int64,
    "fraction_of_full": pl.Float64,
    "epsilon": pl.Float64,
    "warnings": pl.String,
    "seconds": pl.Float64,
    "peak_bytes": pl.Int64,
}


def load_grid(folder: str | os.PathLike[str]) -> pl.DataFrame:
    """Returns the table of a grid, which may still be running.

    Args:
      folder: the folder of the grid.

    Returns:
      One row per cell: `cell` (the name of its folder), `status` (waiting, running,
      finished, diverged, failed), `error`, a column for every setting, the metrics as
      `test_sampled_ndcg@10` and so on, `best_valid_ndcg@10`, `rounds_run`,
      `total_bytes`, `fraction_of_full`, `epsilon` (infinite without a bound, null
      without privacy), `seconds` and `peak_bytes`. The metrics of a cell that has not
      finished are null. A cell whose `summary.json` is damaged has failed, and one
      whose folder was deleted is waiting.

    Raises:
      InputError: if the folder has no grid, or its ledger is damaged.

    Example:
      >>> import tempfile
      >>> from fedpeft_jax.grids.ledger import Ledger
      >>> with tempfile.TemporaryDirectory() as folder:
      ...   cells = {"seed=0": Entry({"seed": 0}, {"rounds": 30})}
      ...   Ledger(pathlib.Path(folder), {}, cells).write()
      ...   load_grid(folder).select("cell", "status", "rounds").rows()
      [('seed=0', 'waiting', 30)]
    """
    path = pathlib.Path(folder)
    ledger = read_ledger(path)
    if ledger is None:
        raise InputError(
            f"{path / FILE} does not exist: name the folder of a grid, as `out` of the "
            "grid named it"
        )
    rows = [_row(path / name, name, cell) for name, cell in ledger.entries.items()]
    metrics = [*_ALWAYS]
    for row in rows:
        metrics += [name for name in row["metrics"] if name not in metrics]
    schema = {
        **dict.fromkeys(("cell", "status", "error"), pl.String),
        **{name: _TYPES[kind_of(field)] for name, field in FIELDS.items()},
        **dict.fromkeys(sorted(metrics, key=_order), pl.Float64),
        **_OTHERS,
    }
    flat = [{**row.pop("metrics"), **row} for row in rows]
    columns = {name: [row.get(name) for row in flat] for name in schema}
    return pl.DataFrame(columns, schema=schema)


def write_table(folder: pathlib.Path) -> pl.DataFrame:
    """Writes the table of a grid to `grid.parquet` and `grid.csv`, and returns it.

    Args:
      folder: the folder of the grid.

    Raises:
      InputError: as `load_grid`, and if the files cannot be written.
    """
    table = load_grid(folder)
    content = io.BytesIO()
    table.write_parquet(content)
    write_atomically(folder / "grid.parquet", content.getvalue())
    write_atomically(folder / "grid.csv", table.write_csv().encode())
    return table


def _row(folder: pathlib.Path, name: str, entry: Entry) -> dict[str, Any]:
    """Returns a row: its columns, and its metrics by name in `metrics`."""
    settings = {key: field.default for key, field in FIELDS.items()}
    settings.update(entry.settings)
    status = entry.status
    row: dict[str, Any] = {**settings, "cell": name, "error": entry.error}
    row["metrics"] = {}
    if status in ("diverged", "failed"):
        return {**row, "status": status}
    # The folder decides: the ledger is written a moment later.
    left = "waiting" if status == "finished" else status
    path = folder / "summary.json"
    if not path.exists():
        return {**row, "status": left}
    try:
        summary = read_summary(folder)
        if summary["config"]["rounds"] != settings["rounds"]:  # it will run on
            return {**row, "status": left}
        found = {**_figures(summary), "metrics": _metrics(summary["metrics"])}
        return {**row, **found, "status": "finished"}
    except InputError as error:
        said = str(error)
    except (KeyError, TypeError, AttributeError):
        said = f"{path} is damaged: delete it and run the grid again"
    return {**row, "status": "failed", "error": said}


def _metrics(found: Mapping[str, Any]) -> dict[str, float]:
    return {
        f"{target}_{ranking}_{metric}": float(value)
        for target, rankings in found.items()
        for ranking, metrics in rankings.items()
        for metric, value in metrics.items()
    }


def _figures(summary: Mapping[str, Any]) -> dict[str, Any]:
    best, traffic = summary["best_valid"], summary["communication"]
    privacy = summary.get("privacy")
    epsilon = None
    if privacy:
        epsilon = math.inf if privacy["epsilon"] is None else privacy["epsilon"]
    clock = {k: x for k, x in summary["time"].items() if k != "rounds_per_s"}
    return {
        "best_valid_ndcg@10": best and best["metrics"]["sampled"]["ndcg@10"],
        "best_valid_round": best and best["round"],
        "rounds_run": summary["rounds"]["run"],
        "evaluated_round": summary["rounds"]["evaluated"],
        "total_bytes": round(traffic["total_bytes"]),
        "fraction_of_full": float(traffic["fraction_of_full"]),
        "epsilon": epsilon,
        "warnings": " ".join(one["kind"] for one in summary.get("warnings", ())),
        "seconds": round(sum(clock.values()), 3),
        "peak_bytes": summary["memory"]["peak_rss_bytes"],
    }


def _order(name: str) -> tuple[int, int, int, str]:
    """Orders metrics: of the test items first, of the sampled ranking first."""
    target, ranking, metric = name.split("_", 2)
    cut = metric.partition("@")[2]
    first = int(cut) if cut.isdigit() else 0
    return (target != "test", ranking != "sampled", first, metric)
