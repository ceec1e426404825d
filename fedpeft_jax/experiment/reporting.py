"""The output of a run: notes and progress, and a table of the results at its end."""

import importlib.util
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from rich.box import SIMPLE
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from fedpeft_jax.experiment.callbacks import Callback
from fedpeft_jax.experiment.cli import as_flags
from fedpeft_jax.experiment.link import link_line
from fedpeft_jax.experiment.privacy_report import privacy_lines
from fedpeft_jax.experiment.warnings import warning_lines

_PLAIN_SECONDS = 2.0
METRIC_LABELS = {"hit_rate@10": "HR@10", "recall@10": "Recall@10", "ndcg@10": "NDCG@10"}
_UNITS = ("B", "KB", "MB", "GB", "TB")


def format_bytes(size: float) -> str:
    """Returns a number of bytes as text, with three digits and a decimal unit.

    Example:
      >>> format_bytes(480_248), format_bytes(12)
      ('480 KB', '12 B')
    """
    unit = 0
    while size >= 999.5 and unit < len(_UNITS) - 1:
        size, unit = size / 1000, unit + 1
    return f"{size:.3g} {_UNITS[unit]}" if size < 100 else f"{size:.0f} {_UNITS[unit]}"


def _text(value: Any) -> str:
    if isinstance(value, list):
        return " ".join(map(_text, value))
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def note_figures(callback: Callback, name: str, values: Mapping[str, Any]) -> None:
    """Writes figures as one note, if there are any.

    Args:
      callback: receives the note.
      name: the name that the note begins with.
      values: numbers or lists of numbers by name.
    """
    if values:
        texts = (f"{key.replace('_', ' ')} {_text(x)}" for key, x in values.items())
        callback.note(f"{name}: {', '.join(texts)}")


class ConsoleReporter(Callback):
    """Draws progress bars on a terminal and in a notebook, else prints plain lines.

    In a notebook the bars need ipywidgets.

    Args:
      console: where to print; standard error by default.
      clock: returns seconds, which space the plain lines.
    """

    def __init__(
        self,
        console: Console | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._clock = clock
        self.console = console or Console(stderr=True, highlight=False)
        self._bars: Progress | None = None
        self._tasks: dict[str, Any] = {}
        self._printed = (-_PLAIN_SECONDS, "")

    def note(self, text: str) -> None:
        """Prints a note on its own line."""
        self.console.print(text, markup=False, soft_wrap=True)

    def progress(self, task: str, done: int, total: int, **values: float) -> None:
        """Updates the bar of a task, or prints lines at intervals and at its end."""
        figures = "  ".join(f"{name} {value:.4g}" for name, value in values.items())
        if not self._draws():
            now, (then, last) = self._clock(), self._printed
            if done == total or task != last or now - then >= _PLAIN_SECONDS:
                self.note(f"{task} {done}/{total}  {figures}")
                self._printed = (now, task)
            return
        if self._bars is None:
            self._bars = Progress(
                TextColumn("{task.description:12}"),
                BarColumn(bar_width=24),
                MofNCompleteColumn(),
                TimeRemainingColumn(),
                TextColumn("{task.fields[figures]}", markup=False),
                console=self.console,
            )
            self._bars.start()
        if task not in self._tasks:
            self._tasks[task] = self._bars.add_task(task, total=total, figures="")
        self._bars.update(self._tasks[task], completed=done, figures=figures)

    def _draws(self) -> bool:
        """Returns whether bars can be drawn here."""
        if self.console.is_jupyter:  # rich warns without this package
            return importlib.util.find_spec("ipywidgets") is not None
        return self.console.is_terminal

    def close(self) -> None:
        """Stops the progress bars."""
        if self._bars is not None:
            self._bars.stop()
            self._bars, self._tasks = None, {}  # for another run


def print_summary(
    summary: dict[str, Any],
    references: Iterable[dict[str, Any]] = (),
    console: Console | None = None,
) -> None:
    """Prints the metrics of a run and its baselines, its warnings and its cost.

    Args:
      summary: the content of `summary.json`.
      references: summaries of other runs, printed as further rows.
      console: where to print; standard output by default.
    """
    console = console or Console(file=sys.stdout, highlight=False)
    config, data = summary["config"], summary["dataset"]
    title = (
        f"{data['name']}: the test items of {data['evaluated_users']} users, "
        f"after {summary['rounds']['evaluated']} rounds, seed {config['seed']}"
    )
    table = Table(
        title=title, title_justify="left", box=SIMPLE, show_edge=False, pad_edge=False
    )
    table.add_column("", overflow="fold")  # a long name is folded, no figure is
    names = metric_names(summary["metrics"]["test"])
    for ranking in ("sampled", "all"):
        for metric in names:
            label = f"{METRIC_LABELS[metric]}\n{ranking}"
            table.add_column(label, justify="right", no_wrap=True)
    table.add_column("bytes\nsent", justify="right", no_wrap=True)
    for one in (summary, *references):
        setting = one["config"]
        name = f"{setting['backbone']}: {setting['full']} + {setting['embedding']}"
        size = format_bytes(one["communication"]["total_bytes"])
        style = "bold" if one is summary else None
        table.add_row(name, *_cells(one["metrics"]["test"], names), size, style=style)
    for baseline, metrics in summary["baselines"].items():
        table.add_row(baseline.replace("_", " "), *_cells(metrics["test"], names))
    console.print(table)
    for line in _ranking_lines(summary):
        console.print(line, markup=False, soft_wrap=True)
    for line in map(as_flags, warning_lines(summary)):
        console.print(line, markup=False, soft_wrap=True, style="bold red")
    for line in _cost_lines(summary):
        console.print(line, markup=False, soft_wrap=True)


def metric_names(metrics: Mapping[str, Mapping[str, float]]) -> list[str]:
    """Returns the metrics that a table shows: keys of `METRIC_LABELS`.

    Args:
      metrics: the metrics of a target by ranking. If they have the recall, users have
        several held-out items, and it takes the place of the hit rate.
    """
    several = "recall@10" in metrics["full"]
    return ["recall@10" if several else "hit_rate@10", "ndcg@10"]


def _cells(metrics: dict[str, dict[str, float]], names: Iterable[str]) -> Iterable[str]:
    for ranking in ("sampled", "full"):
        for name in names:
            # With one held-out item per user the recall is the hit rate.
            other = name.replace("recall", "hit_rate")
            yield f"{metrics[ranking].get(name, metrics[ranking][other]):.4f}"


def _ranking_lines(summary: dict[str, Any]) -> Iterable[str]:
    config, data = summary["config"], summary["dataset"]
    drawn = {"uniform": "sampled", "popularity": "popularity-sampled"}
    rivals = f"{config['num_candidates']} {drawn[config['candidates']]} negatives"
    if given := summary["protocol"].get("candidates"):
        rivals = f"the {given['most']} candidates of {given['given']}"
        if given["fewest"] < given["most"]:
            rivals = rivals.replace("the ", f"the {given['fewest']} to ", 1)
    yield (
        f"sampled: against {rivals}; all: against "
        "every item that is not a training or validation item of the user"
    )
    if "test_pairs" in data:
        yield (
            f"{data['test_pairs'] / data['evaluated_users']:.1f} test items per user, "
            "ranked together; Recall@10: the share of them in the first 10"
        )


def _cost_lines(summary: dict[str, Any]) -> Iterable[str]:
    if (best := summary["best_valid"]) is not None:
        value = best["metrics"]["sampled"]["ndcg@10"]
        yield f"best validation NDCG@10 {value:.4f}, at round {best['round']}"
    traffic, clock = summary["communication"], summary["time"]
    up, down = (
        ", ".join(
            f"{phase.replace('_', '-')} {format_bytes(size)}"
            for phase, size in traffic[f"{way}_bytes_per_client_round"].items()
        )
        for way in ("uplink", "downlink")
    )
    both = f"each way: {up}" if up == down else f"up: {up}; down: {down}"
    yield f"bytes per client and round, {both}"
    # Earlier summaries have none of the keys that are read with `get`.
    yield from (f"the upload reveals {text}" for text in traffic.get("reveals", ()))
    parts = f"frozen tables sent once: {format_bytes(traffic['one_time_bytes'])}"
    if traffic.get("merges"):
        parts += f", fetched after {traffic['merges']} merges: "
        parts += format_bytes(traffic["catch_up_bytes"])
    yield (
        f"total {format_bytes(traffic['total_bytes'])} ({parts}), "
        f"{100 * traffic['fraction_of_full']:.1f} % of the full table's "
        f"{format_bytes(traffic['full_total_bytes'])}"
    )
    yield from privacy_lines(summary.get("privacy"))
    if traffic.get("link"):
        yield link_line(traffic["link"], summary["config"])
    yield (
        f"pretraining {clock['pretrain_s']:.1f} s, compilation "
        f"{clock['compile_s']:.1f} s, rounds {clock['rounds_s']:.1f} s "
        f"({clock['rounds_per_s']:.1f} per second), evaluation "
        f"{clock['evaluate_s']:.1f} s, peak memory "
        f"{format_bytes(summary['memory']['peak_rss_bytes'])}"
    )
