"""Tables of a report: accuracy, slices, time and memory."""

import statistics
from collections.abc import Iterable, Mapping
from typing import Any

from fedpeft_jax.experiment.pareto import Figure as Mean
from fedpeft_jax.experiment.pareto import ParetoRow
from fedpeft_jax.experiment.reporting import METRIC_LABELS, format_bytes
from fedpeft_jax.experiment.seeds import most_epsilon
from fedpeft_jax.reports.collect import Collected
from fedpeft_jax.reports.elements import Table

HOW_SLICES = (
    "Test NDCG@10 (sampled) by thirds of the users, from few to many training items, "
    "and by thirds of the test items, from unpopular to popular; means over the seeds."
)
HOW_COSTS = (
    "Means over the seeds. Times depend on the machine and on what else ran on it. "
    "Compilation is apart from the rounds; memory is the peak of the process."
)
_THIRDS = ("low", "middle", "high")


def accuracy(collected: Collected) -> Table:
    """Returns the metrics, bytes and epsilon of every row, and the baselines.

    Args:
      collected: the runs.
    """
    compared = collected.compared
    head = ["", *(metric_label(*key) for key in compared.metrics), "bytes", "of Full"]
    private = any(run.summary.get("privacy") for r in compared.rows for run in r.runs)
    head += ["epsilon"] * private + ["seeds"]
    rows, strong = [], set()
    for place, row in enumerate(compared.rows):
        cells = [row.label]
        cells += [_mean(f, spread=len(row.seeds) > 1) for f in row.figures.values()]
        cells += [format_bytes(row.total_bytes), f"{100 * row.fraction:.3g} %"]
        cells += [most_epsilon([run.summary for run in row.runs])] * private + [
            str(len(row.seeds))
        ]
        rows.append(tuple(cells))
        strong |= {place} if row.on_front else set()
    for name, figures in compared.baselines.items():
        cells = [name.replace("_", " "), *(_mean(f) for f in figures.values())]
        rows.append((*cells, *[""] * (len(head) - len(cells))))
    return Table(tuple(head), tuple(rows), frozenset(strong))


def metric_label(ranking: str, name: str) -> str:
    """Returns the title of a column, e.g. `'HR@10, all'`.

    Args:
      ranking: `'sampled'` or `'full'`.
      name: a key of `METRIC_LABELS`.
    """
    return METRIC_LABELS[name] + {"sampled": "", "full": ", all"}[ranking]


def slices(collected: Collected) -> Iterable[Table]:
    """Returns the NDCG@10 of every row by thirds of users and of items, if known.

    Args:
      collected: the runs.
    """
    found = [(row, slice_means(row)) for row in collected.compared.rows]
    if not any(means for _, means in found):
        return
    heads = {"user_activity": "users", "item_popularity": "items"}
    head = ["", *(f"{heads[kind]}, {third}" for kind in heads for third in _THIRDS)]
    keys = [(kind, third) for kind in heads for third in _THIRDS]
    rows = [
        (row.label, *(_mean(means[key]) if key in means else "" for key in keys))
        for row, means in found
    ]
    yield Table(tuple(head), tuple(rows))


def slice_means(row: ParetoRow) -> dict[tuple[str, str], Mean]:
    """Returns the test NDCG@10 (sampled) of a row by kind of slice and third.

    Args:
      row: the row.
    """
    values: dict[tuple[str, str], list[float]] = {}
    for run in row.runs:
        kinds: Mapping[str, Any] = run.summary.get("slices", {})
        for kind, thirds in kinds.items():
            for third, facts in thirds.items():
                value = facts.get("sampled", {}).get("ndcg@10")
                if value is not None:
                    values.setdefault((kind, third), []).append(value)
    return {
        key: Mean(statistics.fmean(v), statistics.stdev(v) if len(v) > 1 else 0.0)
        for key, v in values.items()
    }


def costs(collected: Collected) -> Table:
    """Returns time and memory of every row.

    Args:
      collected: the runs.
    """
    head = ("", "ms a round", "pretraining, s", "compilation, s", "evaluation, s",
            "total, s", "peak memory")  # fmt: skip
    rows = []
    for row in collected.compared.rows:
        clocks = [run.summary["time"] for run in row.runs if "time" in run.summary]
        peaks = [
            run.summary["memory"]["peak_rss_bytes"]
            for run in row.runs
            if run.summary.get("memory", {}).get("peak_rss_bytes")
        ]
        if not clocks:
            rows.append((row.label, *[""] * (len(head) - 1)))
            continue
        stages = ("pretrain_s", "compile_s", "evaluate_s")
        means = [statistics.fmean(clock[stage] for clock in clocks) for stage in stages]
        total = statistics.fmean(
            sum(
                v
                for name, v in clock.items()
                if name.endswith("_s") and "per" not in name
            )
            for clock in clocks
        )
        per_second = statistics.fmean(clock["rounds_per_s"] or 0 for clock in clocks)
        rows.append(
            (
                row.label,
                f"{1000 / per_second:.3g}" if per_second else "",
                *(f"{mean:.1f}" for mean in means),
                f"{total:.1f}",
                format_bytes(max(peaks)) if peaks else "",
            )
        )
    return Table(head, tuple(rows))


def _mean(figure: Mean, spread: bool = False) -> str:
    text = f"{figure.mean:.3f}"
    return f"{text} ± {f'{figure.spread:.3f}'.lstrip('0')}" if spread else text
