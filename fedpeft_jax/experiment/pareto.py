"""Compares the runs of grids: accuracy against total bytes, and the Pareto front.

Runs that differ in nothing but the seed are one row. A row is on the front if no other
row is as accurate with fewer bytes, or more accurate with as many.
"""

import dataclasses
import statistics
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from fedpeft_jax.core.errors import InputError
from fedpeft_jax.experiment.finished import FinishedRun
from fedpeft_jax.experiment.identity import FREE, SUMMARY
from fedpeft_jax.experiment.reporting import metric_names
from fedpeft_jax.experiment.row_labels import family, row_labels, without_followers

# They change neither what a run sends nor how accurate it is. The data are compared by
# what the summaries say of them, because their files may be in different places.
_LEFT_OUT = (*FREE, *SUMMARY, "seed", "baselines", "data_dir")
# Results under different values of these are not comparable.
_RANKED_AGAINST = ("candidates", "num_candidates", "given_candidates", "data_seed")


class Figure(NamedTuple):
    """A mean over seeds.

    Attributes:
      mean: the mean.
      spread: the sample standard deviation; 0 for one seed.
    """

    mean: float
    spread: float


@dataclasses.dataclass(frozen=True)
class ParetoRow:
    """The runs that differ in nothing but the seed.

    Attributes:
      label: a short name.
      family: kind of item embedding: `Full`, `LoRA`, `Hash`, `RQ` or `other`.
      variant: `''`, `'without merges'` or `'without table'`.
      seeds: the seeds, in order.
      figures: the test metrics by ranking (`sampled`, `full`) and metric.
      total_bytes: mean over seeds of what a whole run sends.
      fraction: `total_bytes` as a fraction of the reference's.
      is_reference: whether the row is the reference, Full in float32.
      on_front: whether the row is on the front of bytes and NDCG@10 (sampled).
      runs: the runs, one per seed.
    """

    label: str
    family: str
    variant: str
    seeds: tuple[int, ...]
    figures: Mapping[tuple[str, str], Figure]
    total_bytes: float
    fraction: float
    is_reference: bool
    on_front: bool
    runs: tuple[FinishedRun, ...] = ()


@dataclasses.dataclass(frozen=True)
class Comparison:
    """The rows of one or more grids.

    Attributes:
      dataset: what the summaries say of the data.
      rows: the rows, by their bytes.
      baselines: the test metrics of each baseline, by ranking and metric.
      reference_bytes: bytes of Full in float32.
      notes: what a reader of the figures has to know, one line each.
    """

    dataset: Mapping[str, Any]
    rows: tuple[ParetoRow, ...]
    baselines: Mapping[str, Mapping[tuple[str, str], Figure]]
    reference_bytes: float
    notes: tuple[str, ...]

    @property
    def metrics(self) -> list[tuple[str, str]]:
        """The ranking and the name of every metric, in the order of a table."""
        return list(self.rows[0].figures)


def compare(runs: Sequence[FinishedRun]) -> Comparison:
    """Returns the comparison of finished runs.

    Args:
      runs: the runs, at least one; of equal runs with equal seeds the first counts.

    Raises:
      InputError: if they differ in their data or in what items are ranked against.
    """
    _check_same_data(runs)
    grouped: dict[str, dict[int, FinishedRun]] = {}
    repeated = 0
    for run in runs:
        group = grouped.setdefault(repr(sorted(settings_of(run).items())), {})
        seed = run.summary["config"]["seed"]
        repeated += seed in group
        group.setdefault(seed, run)
    groups = [[group[seed] for seed in sorted(group)] for group in grouped.values()]
    settings = [settings_of(group[0]) for group in groups]
    totals = [statistics.fmean(_traffic(group, "total_bytes")) for group in groups]
    full = [i for i, one in enumerate(settings) if _is_full_float32(one)]
    reference = max(full, key=lambda i: totals[i], default=None)
    if reference is None:
        against = max(
            statistics.fmean(_traffic(group, "full_total_bytes")) for group in groups
        )
    else:
        against = totals[reference]
    keys = _metrics(runs[0].summary)
    figures = [_figures([run.summary["metrics"] for run in g], keys) for g in groups]
    front = on_front(totals, [found["sampled", "ndcg@10"].mean for found in figures])
    rows = []
    for i, label in enumerate(row_labels(settings)):
        kind, variant = family(settings[i], settings)
        rows.append(
            ParetoRow(
                label=label,
                family=kind,
                variant=variant,
                seeds=tuple(run.summary["config"]["seed"] for run in groups[i]),
                figures=figures[i],
                total_bytes=totals[i],
                fraction=totals[i] / against if against else 0.0,
                is_reference=i == reference,
                on_front=front[i],
                runs=tuple(groups[i]),
            )
        )
    return Comparison(
        dataset=runs[0].summary["dataset"],
        rows=tuple(sorted(rows, key=lambda row: row.total_bytes)),
        baselines=_baselines(groups, keys),
        reference_bytes=against,
        notes=tuple(_notes(rows, repeated, reference is not None)),
    )


def on_front(sizes: Sequence[float], accuracies: Sequence[float]) -> list[bool]:
    """Returns for each row whether it is on the Pareto front.

    A row is not on it if another row has fewer or equally many bytes and a higher or
    equal accuracy, one of them strictly.

    Args:
      sizes: bytes of each row.
      accuracies: accuracy of each row.

    Example:
      >>> on_front([1, 2, 3, 3], [0.1, 0.3, 0.2, 0.4])
      [True, True, False, True]
    """
    points = list(zip(sizes, accuracies, strict=True))
    return [
        not any(
            size <= s and accuracy >= a and (size, accuracy) != (s, a)
            for size, accuracy in points
        )
        for s, a in points
    ]


def settings_of(run: FinishedRun) -> dict[str, Any]:
    """Returns the settings by which rows differ: without the seed and the folders.

    Args:
      run: the run.
    """
    config = run.summary["config"]
    return without_followers({k: config[k] for k in config if k not in _LEFT_OUT})


def _is_full_float32(settings: Mapping[str, Any]) -> bool:
    stages = (settings.get(name, "identity") for name in ("upload", "download"))
    trained = settings["full"] == "trained" and settings["embedding"] == "none"
    return trained and all(stage == "identity" for stage in stages)


def _check_same_data(runs: Sequence[FinishedRun]) -> None:
    def said(run: FinishedRun) -> dict[str, Any]:
        data, config = run.summary["dataset"], run.summary["config"]
        kept = {f"dataset {k}": v for k, v in data.items() if k != "notes"}
        return {**kept, **{name: config.get(name) for name in _RANKED_AGAINST}}

    first = said(runs[0])
    for run in runs[1:]:
        other = said(run)
        for name in dict.fromkeys([*first, *other]):
            a, b = first.get(name), other.get(name)
            if a != b:
                raise InputError(
                    f"{runs[0].folder} and {run.folder} are not comparable: {name} is "
                    f"{a!r} and {b!r}; name grids of the same data"
                )


def _metrics(summary: Mapping[str, Any]) -> list[tuple[str, str]]:
    names = metric_names(summary["metrics"]["test"])
    return [(ranking, name) for ranking in ("sampled", "full") for name in names]


def _traffic(group: Sequence[FinishedRun], key: str) -> list[float]:
    return [run.summary["communication"][key] for run in group]


def _figures(
    found: Sequence[Mapping[str, Any]], keys: Sequence[tuple[str, str]]
) -> dict[tuple[str, str], Figure]:
    figures = {}
    for ranking, name in keys:
        # With one held-out item per user the recall is the hit rate.
        other = name.replace("recall", "hit_rate")
        metrics = [one["test"][ranking] for one in found]
        values = [one.get(name, one.get(other)) for one in metrics]
        spread = statistics.stdev(values) if len(values) > 1 else 0.0
        figures[ranking, name] = Figure(statistics.fmean(values), spread)
    return figures


def _baselines(
    groups: Sequence[Sequence[FinishedRun]], keys: Sequence[tuple[str, str]]
) -> dict[str, dict[tuple[str, str], Figure]]:
    """Returns the baselines, each from the first row whose runs all have it."""
    found: dict[str, dict[tuple[str, str], Figure]] = {}
    for group in groups:
        for name in group[0].summary["baselines"]:
            every = [run.summary["baselines"].get(name) for run in group]
            if name not in found and None not in every:
                found[name] = _figures(every, keys)
    return found


def _notes(rows: Sequence[ParetoRow], repeated: int, has_reference: bool) -> list[str]:
    notes = []
    if len({row.seeds for row in rows}) > 1:
        listed = "; ".join(
            f"{row.label}: {', '.join(map(str, row.seeds))}" for row in rows
        )
        notes.append(f"the rows have different seeds: {listed}")
    if repeated:
        runs = "run repeats" if repeated == 1 else "runs repeat"
        notes.append(
            f"{repeated} {runs} the settings and the seed of another one, and the "
            "first counts"
        )
    if not has_reference:
        notes.append(
            "no row is Full in float32: its bytes are those that the runs report for it"
        )
    return notes
