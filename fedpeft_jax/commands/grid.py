r"""Runs rows of settings with several seeds, and prints one table of the results.

    python experiments/grid.py --seeds=0,1,2 --out=runs/grid \
        --vary='full=trained embedding=none' \
        --vary='full=frozen embedding=lora(rank=8)'

Every setting of `run.py` except `--seed` applies to all rows, and each --vary is one
row, which changes some settings. Without --vary the rows are LoRA models and their
references. The table has means and standard deviations over the seeds. The same command
again continues the grid in --out (runs/grid by default): runs that have finished are
read, and one that was stopped goes on.
"""

import pathlib
import shlex
import statistics
from typing import Any

from absl import flags
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from fedpeft_jax.commands.run import run_in
from fedpeft_jax.core.errors import InputError
from fedpeft_jax.experiment import RunFolder, cli
from fedpeft_jax.experiment.folder_lock import FolderLock
from fedpeft_jax.experiment.reporting import METRIC_LABELS, format_bytes, metric_names
from fedpeft_jax.experiment.stopping import stop_on_signals
from fedpeft_jax.experiment.warnings import warning_lines

REFERENCES = (
    "full=trained embedding=none",
    "full=frozen embedding=none",
    "full=frozen embedding=none full_init=random",
    "full=frozen embedding=lora(rank=4)",
    "full=frozen embedding=lora(rank=8)",
)


def define_flags() -> None:
    """Defines the flags of the command."""
    cli.define_flags(leave_out=("seed",))
    flags.DEFINE_list("seeds", ["0", "1", "2"], "seeds of every row")
    cli.define_vary()
    flags.DEFINE_enum(
        "target",
        "test",
        ["valid", "test"],
        "held-out items whose metrics are printed; choose settings by valid",
    )


def read_row(text: str, settings: dict[str, Any]) -> dict[str, Any]:
    """Returns the common settings with the changes of a row.

    Args:
      text: setting=value, separated by spaces.
      settings: the common settings by name.

    Raises:
      InputError: for a word that is not a setting with its value.
    """
    changes: dict[str, Any] = {}
    try:
        words = shlex.split(text)
    except ValueError as error:  # a quotation that does not end
        raise InputError(f"--vary={text!r}: {str(error).lower()}") from None
    for word in words:
        name, separator, value = word.partition("=")
        if not separator or name not in settings:
            raise InputError(f"--vary={text!r}: {word!r} is not setting=value")
        try:
            changes[name] = flags.FLAGS[name].parser.parse(value)
        except ValueError as error:
            raise InputError(f"--vary={text!r}: {error}") from None
    return {**settings, **changes}


def lock(out: pathlib.Path) -> FolderLock:
    """Makes the folder of a grid and locks it, so that no other grid writes to it.

    Args:
      out: the folder.

    Raises:
      InputError: if it cannot be made, or another grid is writing to it.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
        return FolderLock(out)
    except OSError as error:
        raise InputError(f"cannot write {out}: {error.strerror}; set `out`") from error


def print_table(rows: dict[str, list[dict[str, Any]]], target: str) -> None:
    """Prints mean and standard deviation over seeds, one line per row.

    Args:
      rows: the summaries of each row, one per seed, by the text of the row.
      target: the held-out items whose metrics are printed, 'valid' or 'test'.
    """
    console = Console(highlight=False)
    table = Table(box=SIMPLE, show_edge=False, pad_edge=False, collapse_padding=True)
    table.add_column("row")  # a long name is folded, no figure is
    first = next(iter(rows.values()))[0]["metrics"][target]
    metrics = [
        (ranking, name)
        for ranking in ("sampled", "full")
        for name in metric_names(first)
    ]
    for ranking, name in metrics:
        label = METRIC_LABELS[name]
        items = {"sampled": "sampled", "full": "all"}[ranking]
        table.add_column(f"{label}\n{items}", justify="right", no_wrap=True)
    table.add_column("bytes\nsent", justify="right", no_wrap=True)
    table.add_column("of\nfull", justify="right", no_wrap=True)
    private = any(summaries[0].get("privacy") for summaries in rows.values())
    if private:
        table.add_column("epsilon", justify="right", no_wrap=True)

    def cells(values: list[list[float]]) -> list[str]:
        spread = [statistics.stdev(v) if len(v) > 1 else 0.0 for v in values]
        return [
            f"{statistics.fmean(v):.3f} ±{f'{s:.3f}'.lstrip('0')}"
            for v, s in zip(values, spread, strict=True)
        ]

    seeds = len(next(iter(rows.values())))
    console.print(f"{target} items, mean ± standard deviation over {seeds} seeds")
    for number, (text, summaries) in enumerate(rows.items()):
        console.print(f"row {number}: {text}", markup=False, soft_wrap=True)
        found = [summary["metrics"][target] for summary in summaries]
        traffic = summaries[0]["communication"]
        table.add_row(
            str(number),
            *cells([[m[ranking][name] for m in found] for ranking, name in metrics]),
            format_bytes(traffic["total_bytes"]),
            f"{100 * traffic['fraction_of_full']:.3g}%",
            *([most_epsilon(summaries)] if private else []),
        )
    for name, baseline in summaries[0]["baselines"].items():
        values = [baseline[target][ranking][metric] for ranking, metric in metrics]
        # Cells that are left out are empty.
        table.add_row(name.replace("_", " "), *(f"{x:.3f}" for x in values))
    console.print(table)
    for number, summaries in enumerate(rows.values()):
        for line in row_warnings(summaries):
            console.print(f"row {number}, {line}", markup=False, soft_wrap=True)


def most_epsilon(summaries: list[dict[str, Any]]) -> str:
    """Returns the largest epsilon of some runs as text.

    Args:
      summaries: the summaries of a row, one per seed.

    Example:
      >>> most_epsilon([{"privacy": {"epsilon": 1.5}}, {"privacy": {"epsilon": 2.0}}])
      '2'
      >>> most_epsilon([{"privacy": None}])
      'none'
    """
    # An earlier version wrote no privacy, and an epsilon that is None is infinite.
    found = [(summary.get("privacy") or {}).get("epsilon") for summary in summaries]
    bounded = [epsilon for epsilon in found if epsilon is not None]
    return "none" if len(bounded) < len(found) else f"{max(bounded):.3g}"


def row_warnings(summaries: list[dict[str, Any]]) -> list[str]:
    """Returns one line per kind of warning, with the number of seeds that have it.

    Args:
      summaries: the summaries of a row, one per seed.

    Example:
      >>> warning = {"kind": "x", "message": "it is bad", "try": ["rounds=9"]}
      >>> row_warnings([{"warnings": []}, {"warnings": [warning]}])
      ['1 of 2 seeds: warning: it is bad: try --rounds=9']
    """
    lines: dict[str, list[str]] = {}
    for summary in summaries:
        found = {warning["kind"]: warning for warning in summary.get("warnings", ())}
        for kind, warning in found.items():
            lines.setdefault(kind, []).extend(warning_lines({"warnings": [warning]}))
    total = len(summaries)
    return [
        cli.as_flags(f"{len(same)} of {total} seeds: {same[0]}")
        for same in lines.values()
    ]


def main(argv: list[str]) -> int:
    """Runs the grid and returns the exit code."""

    def work() -> None:
        settings = cli.settings_from_flags()
        out = pathlib.Path(settings.pop("out") or "runs/grid")
        texts = flags.FLAGS.vary or list(REFERENCES)
        given = {text: read_row(text, settings) for text in texts}
        words = flags.FLAGS.seeds
        try:
            seeds = [int(seed) for seed in words]
        except ValueError:
            seeds = []
        if not seeds or len(set(seeds)) < len(seeds):
            raise InputError(f"--seeds={','.join(words)}: write 0,1,2")
        for row in given.values():
            for seed in seeds:  # a bad row or a bad seed raises here
                cli.configure_row({**row, "seed": seed})
        rows: dict[str, list[dict[str, Any]]] = {text: [] for text in given}
        held = lock(out)
        with stop_on_signals(kill=True) as stop, cli.continued_by(out):
            for seed in seeds:
                for number, (text, row) in enumerate(given.items()):
                    print(f"row {number} ({text}), seed {seed}", flush=True)
                    config = cli.configure_row({**row, "seed": seed})
                    path = out / f"row{number}-seed{seed}"
                    folder = RunFolder(path, config.name, config.run.resume)
                    rows[text].append(run_in(config, folder, stop))
        held.release()
        print_table(rows, flags.FLAGS.target)

    return cli.exit_code(work, argv)
