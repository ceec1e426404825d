r"""Runs settings x seeds and prints their mean and spread in one table.

    python experiments/grid.py --seeds=0,1,2 --out=runs/grid \
        --vary='full=trained embedding=none' \
        --vary='full=frozen embedding=lora(rank=8)'

Every flag of `run.py` sets all rows; a row changes what its --vary says. Without --vary
the rows are LoRA models and what has to stand beside them. Runs that are finished in
--out (runs/grid by default) are not run again.
"""

import dataclasses
import json
import pathlib
import shlex
import statistics
from itertools import count
from typing import Any

from absl import flags
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from fedpeft_jax.core.errors import InputError
from fedpeft_jax.experiment import cli
from fedpeft_jax.experiment.config import RunConfig
from fedpeft_jax.experiment.reporting import ConsoleReporter, format_bytes
from fedpeft_jax.experiment.run_folder import RunFolder
from fedpeft_jax.experiment.training import Run

REFERENCES = (
    "full=trained embedding=none",
    "full=frozen embedding=none",
    "full=frozen embedding=none full_init=random",
    "full=frozen embedding=lora(rank=4)",
    "full=frozen embedding=lora(rank=8)",
)
_SEEDS = flags.DEFINE_list("seeds", ["0", "1", "2"], "seeds of every row")
_VARY = flags.DEFINE_multi_string("vary", None, "a row: setting=value, with spaces")
_TARGET = flags.DEFINE_enum(
    "target", "test", ["valid", "test"], "items that are printed; tune on valid"
)


def read_row(text: str, settings: dict[str, Any]) -> RunConfig:
    """Returns the common settings, changed as a row says.

    Raises:
      InputError: for what is no setting, or no value of it.
    """
    changes: dict[str, Any] = {}
    for word in shlex.split(text):
        name, separator, value = word.partition("=")
        if not separator or name not in settings:
            raise InputError(f"--vary={text!r}: {word!r} is not setting=value")
        try:
            changes[name] = flags.FLAGS[name].parser.parse(value)
        except ValueError as error:
            raise InputError(f"--vary={text!r}: {error}") from None
    return cli.config_beside_others({**settings, **changes})


def run_once(config: RunConfig, folder: pathlib.Path) -> dict[str, Any]:
    """Returns the summary of a run, from its folder if it is finished there.

    A run that was interrupted there is moved aside and run again.

    Raises:
      InputError: if the folder holds a run of other settings.
    """
    held, done = folder / "config.json", folder / "summary.json"
    if held.exists():
        if json.loads(held.read_text()) != config.settings():
            raise InputError(f"{folder} holds a run of other settings: set --out")
        if done.exists():
            summary: dict[str, Any] = json.loads(done.read_text())
            return summary
        aside = (folder.with_name(f"{folder.name}-unfinished{n}") for n in count(1))
        folder.rename(next(path for path in aside if not path.exists()))
    reporter = ConsoleReporter()
    try:
        return Run(config, RunFolder(folder, config.name), reporter).execute()
    finally:
        reporter.close()


def print_table(rows: dict[str, list[dict[str, Any]]], target: str) -> None:
    """Prints mean and standard deviation over seeds, a row a setting."""
    console = Console(highlight=False)
    table = Table(box=SIMPLE, show_edge=False, pad_edge=False, collapse_padding=True)
    table.add_column("row")  # a long name is folded, no figure is
    metrics = [
        (ranking, name)
        for ranking in ("sampled", "full")
        for name in ("hit_rate@10", "ndcg@10")
    ]
    for ranking, name in metrics:
        label = {"hit_rate@10": "HR@10", "ndcg@10": "NDCG@10"}[name]
        table.add_column(f"{label}\n{ranking}", justify="right", no_wrap=True)
    table.add_column("bytes\nsent", justify="right", no_wrap=True)
    table.add_column("of\nfull", justify="right", no_wrap=True)

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
        )
    for name, baseline in summaries[0]["baselines"].items():
        values = [baseline[target][ranking][metric] for ranking, metric in metrics]
        table.add_row(name.replace("_", " "), *(f"{x:.3f}" for x in values), "", "")
    console.print(table)


def main(argv: list[str]) -> int:
    """Runs the grid; returns the exit code."""

    def work() -> None:
        settings = cli.settings_from_flags()
        out = pathlib.Path(settings.pop("out") or "runs/grid")
        texts = _VARY.value or list(REFERENCES)
        configs = {text: read_row(text, settings) for text in texts}
        try:
            seeds = [int(seed) for seed in _SEEDS.value]
        except ValueError:
            raise InputError(f"--seeds={','.join(_SEEDS.value)}: write 0,1,2") from None
        rows: dict[str, list[dict[str, Any]]] = {text: [] for text in configs}
        for seed in seeds:
            for number, (text, config) in enumerate(configs.items()):
                print(f"row {number} ({text}), seed {seed}", flush=True)
                seeded = dataclasses.replace(config, seed=seed)
                folder = out / f"row{number}-seed{seed}"
                rows[text].append(run_once(seeded, folder))
        print_table(rows, _TARGET.value)

    return cli.exit_code(work, argv)


if __name__ == "__main__":
    cli.define_flags(leave_out=("seed",))
    flags.adopt_module_key_flags(cli)  # for --help
    cli.start(main)
