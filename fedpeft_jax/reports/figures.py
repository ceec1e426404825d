"""Figures of a report, each with its title and its description."""

from collections.abc import Sequence

import numpy as np

from fedpeft_jax.experiment.curves import Curve, make_curves
from fedpeft_jax.experiment.pareto import ParetoRow, settings_of
from fedpeft_jax.experiment.pareto_plot import render
from fedpeft_jax.reports import plots
from fedpeft_jax.reports.collect import Collected, user_ndcg, user_table
from fedpeft_jax.reports.elements import Figure
from fedpeft_jax.reports.sweeps import find_sweeps, sweep_labels
from fedpeft_jax.reports.tables import slice_means

_THIRDS = ("low", "middle", "high")
_HIDDEN = ("random",)  # far below everything, so that the lines would be pressed flat


def learning_curves(collected: Collected) -> tuple[Figure, ...]:
    """Returns the validation NDCG@10 by round, with the baselines.

    Args:
      collected: the runs.
    """
    folders = {
        row.label: [run.folder for run in row.runs]
        for row in _shown(collected)
        if row.runs[0].summary["metrics"].get("valid")
    }
    lines = make_curves(folders, "ndcg@10")
    if not lines:
        return ()
    levels = _levels(collected, "valid")
    best = max(lines, key=lambda line: line.mean[-1])
    description = (
        f"Validation NDCG@10 against rounds for {len(lines)} rows. After the last "
        f"round {best.label} has the highest value, {best.mean[-1]:.3f}."
    )
    return (
        Figure(
            "Validation NDCG@10 by round",
            description,
            plots.learning_curves(lines, levels),
            "Bands: one standard deviation over the seeds. " + _left_out(collected),
        ),
    )


def pareto(collected: Collected) -> tuple[Figure, ...]:
    """Returns the accuracy against the bytes of a whole run.

    Args:
      collected: the runs.
    """
    compared = collected.compared
    if len([row for row in compared.rows if row.total_bytes > 0]) < 2:
        return ()
    front = ", ".join(row.label for row in compared.rows if row.on_front)
    svg = plots.as_element(render(compared, "svg"))
    levels = ", ".join(
        f"{name.replace('_', ' ')} {figures['sampled', 'ndcg@10'].mean:.3f}"
        for name, figures in compared.baselines.items()
    )
    note = f"Without any bytes, NDCG@10 is that of the baselines: {levels}."
    return (
        Figure(
            "HR@10 and NDCG@10 against the bytes of a run",
            f"Rows on the Pareto front: {front}.",
            svg,
            note if levels else "",
        ),
    )


def sweeps(collected: Collected) -> tuple[Figure, ...]:
    """Returns the accuracy over every setting with at least three values.

    Args:
      collected: the runs.
    """
    rows = collected.compared.rows
    found = []
    for name, groups in find_sweeps([settings_of(r.runs[0]) for r in rows]).items():
        families = [rows[next(iter(group.rows.values()))].family for group in groups]
        labels = sweep_labels(groups, families)
        every = [
            _sweep(rows, label, group.rows)
            for label, group in zip(labels, groups, strict=True)
        ]
        best = sorted(every, key=lambda line: -max(line.mean))[: plots.MOST_ROWS]
        lines = [line for line in every if any(line is one for one in best)]
        values = sorted({x for line in lines for x in line.x})
        described = "; ".join(
            f"{line.label}: {', '.join(f'{x:.3f}' for x in line.mean)}"
            for line in lines
        )
        left_out = (
            f"The plot shows {len(lines)} of {len(every)} lines: those with the "
            "highest test NDCG@10."
        )
        found.append(
            Figure(
                f"NDCG@10 over {name}",
                f"Test NDCG@10 for {name} = {', '.join(f'{x:g}' for x in values)}. "
                f"{described}.",
                plots.over_setting(lines, _levels(collected, "test"), name),
                left_out if len(lines) < len(every) else "",
            )
        )
    return tuple(found)


def activity(collected: Collected) -> tuple[Figure, ...]:
    """Returns the accuracy by thirds of the users, with the popularity baseline.

    Args:
      collected: the runs.
    """
    lines = []
    for row in _shown(collected):
        means = slice_means(row)
        keys = [("user_activity", third) for third in _THIRDS]
        if all(key in means for key in keys):
            values = np.array([means[key] for key in keys])
            lines.append(_line(row.label, np.arange(3), values, len(row.runs)))
            names = _names(row)
    if not lines:
        return ()
    lines += _popular(collected)
    description = "; ".join(
        f"{line.label}: {', '.join(f'{x:.3f}' for x in line.mean)}" for line in lines
    )
    return (
        Figure(
            "NDCG@10 by the activity of the user",
            description,
            plots.slices(lines, names, "training items of the user"),
            "Bars: one standard deviation over the seeds. " + _left_out(collected),
        ),
    )


def _names(row: ParetoRow) -> list[str]:
    thirds = row.runs[0].summary["slices"]["user_activity"]
    return [f"{thirds[t]['from']} to {thirds[t]['to']}" for t in _THIRDS]


def _popular(collected: Collected) -> list[Curve]:
    """Returns the popularity baseline by the same thirds of users, if it was ranked."""
    run = collected.reference.runs[0]
    users = user_table(run)
    values = user_ndcg(users, "most_popular")
    thirds = run.summary.get("slices", {}).get("user_activity")
    if values is None or not thirds:
        return []
    counts = users["train_items"].to_numpy()
    means = np.array(
        [
            values[(counts >= thirds[t]["from"]) & (counts <= thirds[t]["to"])].mean()
            for t in _THIRDS
        ]
    )
    return [Curve("most popular", np.arange(3), means, 0 * means, 1)]


def _shown(collected: Collected) -> list[ParetoRow]:
    """Returns the rows of plots: the reference and the most accurate ones."""
    rows, most = collected.compared.rows, plots.MOST_ROWS - 1
    if len(rows) <= most:
        return list(rows)
    ranked = sorted(rows, key=lambda row: -row.figures["sampled", "ndcg@10"].mean)
    kept = [collected.reference]
    kept += [row for row in ranked if row is not collected.reference][: most - 1]
    return [row for row in rows if any(row is one for one in kept)]


def _left_out(collected: Collected) -> str:
    rows, shown = len(collected.compared.rows), len(_shown(collected))
    if shown == rows:
        return ""
    return (
        f"The plot shows {shown} of {rows} rows: {collected.reference.label} and those "
        "with the highest test NDCG@10."
    )


def _levels(collected: Collected, target: str) -> dict[str, float]:
    """Returns the NDCG@10 of the baselines, by their names."""
    summary = collected.reference.runs[0].summary
    return {
        name.replace("_", " "): metrics[target]["sampled"]["ndcg@10"]
        for name, metrics in summary["baselines"].items()
        if name not in _HIDDEN and metrics.get(target)
    }


def _sweep(rows: Sequence[ParetoRow], label: str, group: dict[float, int]) -> Curve:
    figures = np.array([rows[i].figures["sampled", "ndcg@10"] for i in group.values()])
    return _line(label, np.array(list(group)), figures, 1)


def _line(label: str, x: np.ndarray, figures: np.ndarray, runs: int) -> Curve:
    """Returns a curve of means and spreads, float64[N, 2]."""
    return Curve(label, x, figures[:, 0], figures[:, 1], runs)
