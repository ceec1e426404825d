"""Learning curves: what runs measured while they went on, with means over seeds."""

import json
import os
import pathlib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from fedpeft_jax.core.errors import InputError
from fedpeft_jax.experiment.identity import FREE, SUMMARY
from fedpeft_jax.experiment.row_labels import row_labels, without_followers

Folder = str | os.PathLike[str]
Folders = Folder | Sequence[Folder] | Mapping[str, Folder | Sequence[Folder]]
"""A folder, several, or one or several by the label of their curve."""

AXES = ("round", "bytes", "seconds")

# Runs that differ in nothing but these are one curve.
_NOT_COMPARED = (*FREE, *SUMMARY, "seed", "data_dir")


class History(NamedTuple):
    """What one run has measured so far.

    Attributes:
      folder: its folder.
      config: its settings by name.
      entries: the entries of its `metrics.jsonl`.
      summary: its summary; None if it has not finished.
    """

    folder: pathlib.Path
    config: dict[str, Any]
    entries: list[dict[str, Any]]
    summary: dict[str, Any] | None


class Curve(NamedTuple):
    """The mean of runs that differ in their seed.

    Attributes:
      label: a short name.
      x: float64[N], where the runs were measured: rounds, bytes or seconds.
      mean: float64[N], the mean over runs.
      spread: float64[N], the sample standard deviation over runs; 0 for one run.
      num_runs: the number of runs.
    """

    label: str
    x: np.ndarray
    mean: np.ndarray
    spread: np.ndarray
    num_runs: int


def read_histories(folder: Folder) -> list[History]:
    """Returns the run in a folder, or the runs in its subfolders.

    Args:
      folder: the folder of a run, finished or not, or of a grid of runs.

    Raises:
      InputError: if there is no run, or a file is damaged.
    """
    path = pathlib.Path(folder)
    found = [path] if (path / "config.json").is_file() else []
    if not found and path.is_dir():
        inside = sorted(path.iterdir(), key=lambda one: _natural(one.name))
        found = [one for one in inside if (one / "config.json").is_file()]
    if not found:
        raise InputError(
            f"{path} holds no run: name the folder of a run or of a grid, as `out` "
            "named it"
        )
    return [_read(one) for one in found]


def make_curves(runs: Folders, metric: str, x: str = "round") -> list[Curve]:
    """Returns a curve for every configuration, with the mean over its seeds.

    Runs are averaged at the rounds that all of them have measured.

    Args:
      runs: folders of runs or of grids. In a mapping every label is one curve.
      metric: a validation metric of the sampled ranking such as `'ndcg@10'`, `'loss'`,
        `'bytes'`, `'epsilon'`, or a figure such as `'clipped'`.
      x: `'round'`, `'bytes'` or `'seconds'`.

    Raises:
      InputError: for an unknown metric or axis, or a folder without runs.
    """
    if x not in AXES:
        raise InputError(f"x={x!r} is no axis: use one of {', '.join(AXES)}")
    return [
        _curve(label, group, metric, x)
        for label, group in grouped(runs).items()
        if any(run.entries for run in group)
    ]


def grouped(runs: Folders) -> dict[str, list[History]]:
    """Returns the runs by the label of their curve.

    Args:
      runs: folders of runs or of grids.
    """
    if isinstance(runs, Mapping):
        return {label: list(_all(some)) for label, some in runs.items()}
    groups: dict[str, tuple[dict[str, Any], list[History]]] = {}
    for run in _all(runs):
        kept = {k: v for k, v in run.config.items() if k not in _NOT_COMPARED}
        groups.setdefault(repr(sorted(kept.items())), (kept, []))[1].append(run)
    labels = row_labels(
        [without_followers(settings) for settings, _ in groups.values()]
    )
    return dict(zip(labels, (some for _, some in groups.values()), strict=True))


def value_of(entry: Mapping[str, Any], metric: str) -> float | None:
    """Returns a figure of an entry of `metrics.jsonl`, None if it has no such figure.

    Args:
      entry: the entry.
      metric: as in `make_curves`.

    Example:
      >>> metrics = {"valid": {"sampled": {"mrr": 1.0}}}
      >>> entry = {"round": 2, "loss": 0.5, "metrics": metrics}
      >>> value_of(entry, "mrr"), value_of(entry, "loss"), value_of(entry, "clipped")
      (1.0, 0.5, None)
    """
    found = {
        **{name: entry.get(name) for name in ("round", "loss", "bytes", "seconds")},
        **entry.get("figures", {}),
        **entry.get("privacy", {}),
        **entry["metrics"].get("valid", {}).get("sampled", {}),
    }
    value = found.get(metric)
    return None if value is None else float(value)


def _natural(name: str) -> list[str | float]:
    """Returns a key that sorts the numbers in names by their value."""
    parts = re.split(r"(\d+(?:\.\d+)?)", name)  # every second one is a number
    return [float(part) if n % 2 else part for n, part in enumerate(parts)]


def _all(runs: Folder | Sequence[Folder]) -> Iterator[History]:
    for folder in [runs] if isinstance(runs, str | os.PathLike) else runs:
        yield from read_histories(folder)


def _read(folder: pathlib.Path) -> History:
    path = folder / "config.json"
    try:
        config = json.loads(path.read_text())
        path = folder / "metrics.jsonl"
        lines = path.read_text().splitlines(keepends=True) if path.exists() else []
        # A run that goes on may be writing the last line.
        entries = [json.loads(line) for line in lines if line.endswith("\n")]
        path = folder / "summary.json"
        summary = json.loads(path.read_text()) if path.exists() else None
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read ({error}): run it again") from None
    return History(folder, config, entries, summary)


def _curve(label: str, runs: Sequence[History], metric: str, x: str) -> Curve:
    """Returns the mean curve of some runs."""
    found = []
    for run in runs:
        points = {}
        for entry in run.entries:
            value, place = value_of(entry, metric), value_of(entry, x)
            if value is not None and place is not None:
                points[int(entry["round"])] = (place, value)
        found.append(points)
    rounds = sorted(set.intersection(*(set(points) for points in found)))
    if not rounds:
        last = next(run.entries[-1] for run in runs if run.entries)
        known = [*last["metrics"].get("valid", {}).get("sampled", {}), "loss"]
        known += [*last.get("figures", {}), *last.get("privacy", {})]
        raise InputError(
            f"{label} has no {metric!r} at a round that all its runs have reached: "
            f"its figures are {', '.join(known)}"
        )
    values = np.array([[points[r] for r in rounds] for points in found])
    places, heights = values[..., 0].mean(axis=0), values[..., 1]
    spread = heights.std(axis=0, ddof=1) if len(runs) > 1 else np.zeros(len(rounds))
    return Curve(label, places, heights.mean(axis=0), spread, len(runs))
