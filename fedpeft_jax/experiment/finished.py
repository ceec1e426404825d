"""Reads the summaries of runs that have finished: one run's, or those of grids."""

import json
import math
import pathlib
from collections.abc import Sequence
from typing import Any, NamedTuple

from fedpeft_jax.core.errors import InputError
from fedpeft_jax.experiment.summary import FORMAT


class FinishedRun(NamedTuple):
    """A run that has finished.

    Attributes:
      folder: its folder.
      summary: the content of its `summary.json`.
    """

    folder: pathlib.Path
    summary: dict[str, Any]


class Missing(NamedTuple):
    """A run of a grid that has no result.

    Attributes:
      folder: its folder, which may not exist.
      reason: why, as the end of a sentence about it.
    """

    folder: pathlib.Path
    reason: str


def read_summary(folder: pathlib.Path) -> dict[str, Any]:
    """Returns the summary of a run.

    Args:
      folder: the folder of the run.

    Raises:
      InputError: if the run has not finished, or the file is damaged.
    """
    path = folder / "summary.json"
    try:
        summary = json.loads(path.read_text())
    except FileNotFoundError:
        raise InputError(
            f"{path} does not exist: name the folder of a run that has finished"
        ) from None
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read ({error}): run it again") from None
    if not isinstance(summary, dict) or summary.get("format") != FORMAT:
        raise InputError(f"{path} is no summary of format {FORMAT}: run it again")
    return summary


def read_runs(folders: Sequence[pathlib.Path]) -> list[FinishedRun]:
    """Returns finished runs, each with all that a comparison of runs reads.

    Args:
      folders: the folders of the runs.

    Raises:
      InputError: for a run that has not finished, or a damaged summary.
    """
    return [FinishedRun(folder, _checked(folder)) for folder in folders]


def read_grids(
    folders: Sequence[pathlib.Path],
) -> tuple[list[FinishedRun], list[Missing]]:
    """Returns the finished runs of one or more grids.

    Args:
      folders: the folders of the grids, which hold one folder per run.

    Returns:
      The runs, and those that have no result.

    Raises:
      InputError: for a folder without finished runs, or a damaged summary.
    """
    runs: list[FinishedRun] = []
    missing: list[Missing] = []
    for grid in folders:
        try:
            inside = sorted(grid.iterdir(), key=lambda path: (len(path.name), path))
        except OSError as error:
            raise InputError(
                f"{grid} cannot be read ({error.strerror}): name the folder of a grid"
            ) from None
        finished = [path for path in inside if (path / "summary.json").exists()]
        if not finished:
            raise InputError(
                f"{grid} holds no run that has finished: name the folder of a grid, as "
                "`out` of the grid named it"
            )
        runs += [FinishedRun(path, _checked(path)) for path in finished]
        reasons = _reasons(grid)
        begun = [path for path in inside if (path / "config.json").exists()]
        missing += [
            Missing(path, reasons.get(path, "has not finished"))
            for path in dict.fromkeys([*reasons, *begun])
            if path not in finished
        ]
    return runs, missing


def _reasons(grid: pathlib.Path) -> dict[pathlib.Path, str]:
    """Returns what the ledger of a grid says of its cells, if there is one.

    `grids` writes the ledger and imports this package, so that its reader is not here.
    """
    found = {}
    try:
        for cell in json.loads((grid / "grid.json").read_text())["cells"]:
            path, status = grid / cell["name"], cell["status"]
            if status in ("diverged", "failed"):
                found[path] = f"{status} ({cell['error']})"
            elif status == "running" or (path / "config.json").exists():
                found[path] = "has not finished"
            else:
                found[path] = "has not begun"
    except (OSError, ValueError, KeyError, TypeError):
        return {}
    return found


def _checked(folder: pathlib.Path) -> dict[str, Any]:
    """Returns a summary that has all that a comparison of runs reads."""
    summary = read_summary(folder)
    try:
        config, traffic = summary["config"], summary["communication"]
        numbers = [config["seed"], traffic["total_bytes"], traffic["full_total_bytes"]]
        found = [summary["metrics"], *summary["baselines"].values()]
        rankings = [one["test"][r] for one in found for r in ("sampled", "full")]
        for metrics in rankings:
            # Of several held-out items the recall is known instead.
            first = "recall@10" if "recall@10" in metrics else "hit_rate@10"
            numbers += [metrics[first], metrics["ndcg@10"]]
        sound = all(map(math.isfinite, numbers)) and all(
            isinstance(text, str) for text in (config["full"], config["embedding"])
        )
        sound = sound and isinstance(summary["dataset"], dict)
    except (KeyError, TypeError, AttributeError):
        sound = False
    if not sound:
        raise InputError(
            f"{folder / 'summary.json'} is damaged: a figure is missing or is no "
            "number; delete the file and run the grid again"
        )
    return summary
