"""Prints the results of runs and grids, or writes them as a page to read and to send.

    fedpeft-jax report runs/a runs/b
    fedpeft-jax report runs/grid --out=report.html
    fedpeft-jax report runs/grid --out=report.md --against='LoRA 4'

The arguments are folders of runs that have finished, and of grids. Without --out the
rows are printed as one table, with the baselines and the warnings below; one run has
its costs, too.
"""

import pathlib
from collections.abc import Sequence

from absl import flags
from rich.console import Console

from fedpeft_jax.commands.pareto import print_missing, print_table
from fedpeft_jax.core.errors import InputError
from fedpeft_jax.experiment import cli, print_summary
from fedpeft_jax.experiment.finished import read_summary
from fedpeft_jax.experiment.plot_style import check_matplotlib
from fedpeft_jax.experiment.seeds import row_warnings
from fedpeft_jax.reports.collect import collect
from fedpeft_jax.reports.contents import make_report
from fedpeft_jax.reports.markdown import as_markdown
from fedpeft_jax.reports.page import as_page

ENDINGS = (".html", ".md")


def define_flags() -> None:
    """Defines the flags of the command."""
    flags.DEFINE_list("runs", [], "more folders, separated by commas")
    if "out" not in flags.FLAGS:  # a setting, if the process has other commands
        flags.DEFINE_string(
            "out", None, f"file that the report is written to ({', '.join(ENDINGS)})"
        )
    flags.DEFINE_string(
        "against",
        None,
        "label of the row that the others are compared with; by default Full",
    )
    flags.DEFINE_string("title", "", "title of the report")


def print_runs(folders: Sequence[pathlib.Path]) -> None:
    """Prints the runs in some folders as one table.

    Args:
      folders: folders of runs and of grids.

    Raises:
      InputError: for a run that has not finished, or folders that cannot be compared.
    """
    first = folders[0]
    is_run = (first / "config.json").exists() or not any(first.glob("*/summary.json"))
    if len(folders) == 1 and is_run:
        print_summary(read_summary(first))
        return
    collected = collect(folders)
    console = Console(highlight=False)
    print_table(collected.compared, console)
    print_missing(collected.missing, console)
    for row in collected.compared.rows:
        for line in row_warnings([run.summary for run in row.runs]):
            text = f"{row.label}: {line}"
            console.print(text, markup=False, soft_wrap=True, style="bold red")


def write_report(
    folders: Sequence[pathlib.Path], out: pathlib.Path, against: str | None, title: str
) -> None:
    """Writes the report of some runs.

    Args:
      folders: folders of runs and of grids.
      out: the file, which ends in one of `ENDINGS`.
      against: the label of the reference row; None for Full.
      title: the title; empty for one with the name of the data set.

    Raises:
      InputError: for folders that cannot be compared, or a file that cannot be written.
    """
    if out.suffix.lower() not in ENDINGS:
        known = " or ".join(ENDINGS)
        raise InputError(f"--out={out} is of no known kind: let it end in {known}")
    if out.is_dir() or not out.parent.is_dir():
        what = "is a folder" if out.is_dir() else "is in a folder that does not exist"
        raise InputError(f"--out={out} {what}: name a file")
    check_matplotlib("a report")
    report = make_report(collect(folders, against), title)
    text = (as_page if out.suffix.lower() == ".html" else as_markdown)(report)
    try:
        out.write_text(text, encoding="utf-8")
    except OSError as error:
        raise InputError(f"cannot write --out={out}: {error.strerror}") from None
    print(f"report: {out}")


def main(argv: list[str]) -> int:
    """Prints the table or writes the report, and returns the exit code."""

    def work() -> None:
        given = flags.FLAGS
        folders = list(map(pathlib.Path, [*argv[1:], *given.runs]))
        if not folders:
            raise InputError("no runs are given: name folders of runs or of grids")
        once = list(dict.fromkeys(folders))
        if given.out is None:
            for name in ("against", "title"):
                if given[name].value:
                    raise InputError(f"--{name} is for a report: set --out to its file")
            print_runs(once)
        else:
            write_report(once, pathlib.Path(given.out), given.against, given.title)

    return cli.exit_code(work)
