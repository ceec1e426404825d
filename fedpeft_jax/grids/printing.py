"""Prints the results of a grid: one line per row of settings, over its seeds."""

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from fedpeft_jax.experiment.reporting import METRIC_LABELS, format_bytes, metric_names
from fedpeft_jax.experiment.seeds import Summary, most_epsilon, row_warnings


def print_table(rows: Mapping[str, Sequence[Summary | None]], target: str) -> None:
    """Prints mean and standard deviation over seeds, one line per row.

    Args:
      rows: the summaries of each row, one per seed and None for a cell without a
        result, by the text of the row.
      target: the held-out items whose metrics are printed, 'valid' or 'test'.
    """
    console = Console(highlight=False)
    found = {
        text: [x for x in cells if x is not None and target in x["metrics"]]
        for text, cells in rows.items()
    }
    every = [summary for summaries in found.values() for summary in summaries]
    if not every:
        return
    table = Table(box=SIMPLE, show_edge=False, pad_edge=False, collapse_padding=True)
    table.add_column("row")  # a long name is folded, no figure is
    metrics = [
        (ranking, name)
        for ranking in ("sampled", "full")
        for name in metric_names(every[0]["metrics"][target])
    ]
    for ranking, name in metrics:
        label = METRIC_LABELS[name]
        items = {"sampled": "sampled", "full": "all"}[ranking]
        table.add_column(f"{label}\n{items}", justify="right", no_wrap=True)
    table.add_column("bytes\nsent", justify="right", no_wrap=True)
    table.add_column("of\nfull", justify="right", no_wrap=True)
    private = any(summary.get("privacy") for summary in every)
    if private:
        table.add_column("epsilon", justify="right", no_wrap=True)

    seeds = max(map(len, rows.values()))
    what = f"mean ± standard deviation over {seeds} seeds" if seeds > 1 else "one seed"
    console.print(f"{target} items, {what}")
    for number, (text, summaries) in enumerate(found.items()):
        console.print(f"row {number}: {text}", markup=False, soft_wrap=True)
        if len(summaries) < len(rows[text]):
            console.print(
                f"row {number}: {len(summaries)} of {len(rows[text])} seeds have a "
                f"result for {target} items"
            )
        if not summaries:
            continue
        traffic = summaries[0]["communication"]
        table.add_row(
            str(number),
            *(
                _mean_and_spread([_value(x["metrics"][target], *m) for x in summaries])
                for m in metrics
            ),
            format_bytes(traffic["total_bytes"]),
            f"{100 * traffic['fraction_of_full']:.3g}%",
            *([most_epsilon(summaries)] if private else []),
        )
    same_data = len({summary["dataset"]["name"] for summary in every}) == 1
    for name, baseline in every[-1]["baselines"].items() if same_data else ():
        values = [_value(baseline[target], *metric) for metric in metrics]
        # Cells that are left out are empty.
        table.add_row(name.replace("_", " "), *(f"{x:.3f}" for x in values))
    console.print(table)
    for number, summaries in enumerate(found.values()):
        for line in row_warnings(summaries):
            console.print(f"row {number}, {line}", markup=False, soft_wrap=True)


def _value(metrics: Mapping[str, Any], ranking: str, name: str) -> float:
    """Returns a metric; with one held-out item per user the recall is the hit rate."""
    of_ranking = metrics[ranking]
    other = name.replace("recall", "hit_rate")
    return float(of_ranking.get(name, of_ranking.get(other, math.nan)))


def _mean_and_spread(values: Sequence[float]) -> str:
    mean = f"{statistics.fmean(values):.3f}"
    if len(values) < 2:
        return mean
    return f"{mean} ±{f'{statistics.stdev(values):.3f}'.lstrip('0')}"
