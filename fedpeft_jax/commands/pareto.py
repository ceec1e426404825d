"""Prints and draws the accuracy of grids against the bytes that their runs send.

    fedpeft-jax pareto --grids=runs/grid,runs/more --plot=bytes.svg --markdown=bytes.md

Runs that differ in nothing but the seed are one row, with means over the seeds. A row
that is marked * is on the Pareto front: no other row has fewer or equally many bytes
and a higher or equal NDCG@10 (sampled), one of them strictly.
"""

import pathlib
from collections.abc import Iterator, Mapping, Sequence

from absl import flags
from rich.box import SIMPLE
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from fedpeft_jax.core.errors import InputError
from fedpeft_jax.experiment import cli
from fedpeft_jax.experiment.finished import Missing, read_grids
from fedpeft_jax.experiment.pareto import Comparison, Figure, ParetoRow, compare
from fedpeft_jax.experiment.pareto_plot import PLOT_ENDINGS, check_plot, draw
from fedpeft_jax.experiment.reporting import METRIC_LABELS, format_bytes


def define_flags() -> None:
    """Defines the flags of the command."""
    flags.DEFINE_list("grids", [], "folders of grids")
    flags.DEFINE_string(
        "plot", None, f"file that the plot is written to ({', '.join(PLOT_ENDINGS)})"
    )
    flags.DEFINE_string("markdown", None, "file that the table is written to")


def print_table(compared: Comparison, console: Console) -> None:
    """Prints the rows by their bytes, then the baselines and the notes.

    Args:
      compared: the rows.
      console: where to print.
    """
    table = Table(box=SIMPLE, show_edge=False, pad_edge=False, collapse_padding=True)
    table.add_column("", overflow="fold")
    for ranking, name in compared.metrics:
        items = {"sampled": "sampled", "full": "all"}[ranking]
        label = f"{METRIC_LABELS[name]}\n{items}"
        table.add_column(label, justify="right", no_wrap=True)
    table.add_column("bytes\nsent", justify="right", no_wrap=True)
    table.add_column("of\nfull", justify="right", no_wrap=True)
    for row in compared.rows:
        mark, style = ("* ", "bold") if row.on_front else ("", None)
        label = escape(f"{mark}{row.label}")
        table.add_row(label, *_row_cells(row), *_sizes(row), style=style)
    for name, figures in compared.baselines.items():
        table.add_row(name.replace("_", " "), *_cells(figures), "", "")
    console.print(f"{_title(compared)}; * is on the Pareto front", soft_wrap=True)
    console.print(table)
    for note in compared.notes:
        console.print(note, markup=False, soft_wrap=True)


def print_missing(missing: Sequence[Missing], console: Console) -> None:
    """Prints how many runs are left out, and why the first of them is.

    Args:
      missing: the runs that have no result.
      console: where to print.
    """
    if not missing:
        return
    count, (folder, reason) = len(missing), missing[0]
    runs, are = ("run has", "is") if count == 1 else ("runs have", "are")
    first = "" if count == 1 else "the first one, "
    console.print(
        f"{count} {runs} no result and {are} left out: {first}{folder} {reason}",
        markup=False,
        soft_wrap=True,
    )


def as_markdown(compared: Comparison) -> str:
    """Returns the table as Markdown text, rows on the front in bold.

    Args:
      compared: the rows.
    """
    heads = [
        METRIC_LABELS[name] + {"sampled": "", "full": ", all"}[ranking]
        for ranking, name in compared.metrics
    ]
    lines = [["", *heads, "bytes", "of Full"], ["---"] * (len(heads) + 3)]
    for row in compared.rows:
        label = f"**{row.label}**" if row.on_front else row.label
        lines.append([label, *_row_cells(row), *_sizes(row)])
    for name, figures in compared.baselines.items():
        lines.append([name.replace("_", " "), *_cells(figures), "", ""])
    rows = [" | ".join(cell.replace("|", "\\|") for cell in line) for line in lines]
    text = f"{_title(compared)}. Rows in bold are on the Pareto front."
    notes = [f"{note[0].upper()}{note[1:]}." for note in compared.notes]
    return "\n".join([" ".join([text, *notes]), "", *(f"| {r} |" for r in rows), ""])


def _title(compared: Comparison) -> str:
    most = max((row.seeds for row in compared.rows), key=len)
    seeds = f"seeds {', '.join(map(str, most))}" if len(most) > 1 else f"seed {most[0]}"
    values = "mean ± standard deviation over " if len(most) > 1 else ""
    return f"{compared.dataset['name']}: test items, {values}{seeds}"


def _cells(
    figures: Mapping[tuple[str, str], Figure], spreads: bool = False
) -> Iterator[str]:
    """Yields the figures as text; a baseline that no seed changes has no spread."""
    for mean, spread in figures.values():
        text = f" ±{f'{spread:.3f}'.lstrip('0')}" if spread or spreads else ""
        yield f"{mean:.3f}{text}"


def _row_cells(row: ParetoRow) -> Iterator[str]:
    return _cells(row.figures, spreads=len(row.seeds) > 1)


def _sizes(row: ParetoRow) -> tuple[str, str]:
    percent = 100 * row.fraction
    share = f"{percent:.1f}" if percent >= 1 else f"{percent:.2g}"
    return format_bytes(row.total_bytes), f"{share} %"


def _check_writable(path: pathlib.Path, setting: str) -> None:
    """Raises InputError for a path that no file can be written to."""
    if path.is_dir() or not path.parent.is_dir():
        what = "is a folder" if path.is_dir() else "is in a folder that does not exist"
        raise InputError(f"--{setting}={path} {what}: name a file")


def main(argv: list[str]) -> int:
    """Prints the table, writes the files and returns the exit code."""

    def work() -> None:
        if not flags.FLAGS.grids:
            raise InputError("no grids are given: set --grids=DIR,DIR")
        given = {name: flags.FLAGS[name].value for name in ("plot", "markdown")}
        paths = {name: pathlib.Path(text) for name, text in given.items() if text}
        for name, path in paths.items():
            _check_writable(path, name)
        if "plot" in paths:
            check_plot(paths["plot"])
        folders = dict.fromkeys(map(pathlib.Path, flags.FLAGS.grids))
        runs, missing = read_grids(list(folders))
        compared = compare(runs)
        console = Console(highlight=False)
        print_table(compared, console)
        print_missing(missing, console)
        for name, path in paths.items():
            try:
                if name == "plot":
                    draw(compared, path)
                else:
                    path.write_text(as_markdown(compared))
            except OSError as error:
                raise InputError(
                    f"cannot write --{name}={path}: {error.strerror}"
                ) from None

    return cli.exit_code(work, argv)
