r"""Measures what item embeddings cost and can represent, and trains nothing.

    fedpeft-jax costs --dataset=ml-1m --data_dir=DIR --json=costs.jsonl

Every row of the table is one strategy, with the four dimensions of FedPEFT:
communication, storage, computation and representational capacity. By default the rows
are the paper's seven item embeddings. Every setting of `run.py` applies to all rows,
and each --vary is a row of its own instead, which changes some settings. docs/costs.md
explains the columns.
"""

import contextlib
import json
import pathlib
import tempfile
from collections.abc import Mapping
from typing import TextIO

from absl import flags
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from fedpeft_jax.core.errors import InputError
from fedpeft_jax.experiment import (
    Callback,
    ConsoleReporter,
    Prepared,
    RunConfig,
    cli,
    prepare,
)
from fedpeft_jax.experiment.costs import Costs, measure_costs
from fedpeft_jax.experiment.kept_pretraining import keep
from fedpeft_jax.experiment.reporting import format_bytes
from fedpeft_jax.grids.addresses import apply
from fedpeft_jax.grids.axes import read_row

ITEM_EMBEDDINGS = {
    "Full": "full=trained embedding=none",
    "P-LoRA": "full=frozen embedding=lora",
    "P-Hash": "full=frozen embedding=hash",
    "P-RQ": "full=frozen embedding=rq",
    "C-LoRA": "full=none embedding=lora",
    "C-Hash": "full=none embedding=hash",
    "C-RQ": "full=none embedding=rq",
}
"""The paper's item embeddings by name, as rows; `grids/matrix.flags` has the same."""


def define_flags() -> None:
    """Defines the flags of the command."""
    cli.define_flags(leave_out=("out", "resume"))
    cli.define_vary()
    flags.DEFINE_string("json", None, "also write one JSON object per row to this file")


def open_lines(path: str | None) -> contextlib.AbstractContextManager[TextIO | None]:
    """Opens the file of JSON lines; the command does so before it measures anything.

    Args:
      path: the file; None for no file.

    Raises:
      InputError: if it cannot be written.
    """
    if path is None:
        return contextlib.nullcontext()
    try:
        return pathlib.Path(path).open("w", encoding="utf-8")
    except OSError as error:
        raise InputError(
            f"cannot write --json={path} ({error.strerror}): name a file in a folder "
            "that exists"
        ) from None


def measure_row(
    config: RunConfig, callback: Callback, kept: pathlib.Path
) -> tuple[Costs, Prepared]:
    """Measures one row.

    Args:
      config: the configuration of the row.
      callback: receives notes and progress.
      kept: a folder that hands the pretraining of one row to the next ones.
    """
    prepared = prepare(config, callback, kept=kept)
    if prepared.learned is not None:
        keep(kept, prepared.learned, callback.note)
    return measure_costs(config, prepared), prepared


def print_table(rows: Mapping[str, Costs], data: str) -> None:
    """Prints one line per row.

    Args:
      rows: the costs by the name of the row.
      data: the data on which they were measured, in words.
    """
    table = Table(box=SIMPLE, show_edge=False, pad_edge=False, collapse_padding=True)
    table.add_column("\nrow", no_wrap=True)
    bytes_ = ("up", "down", "once", "held")
    others = ("\nMFLOP", "\nms", "item\nvectors", "\nrank", "with\ntable")
    for head in (*(f"bytes\n{name}" for name in bytes_), *others):
        table.add_column(head, justify="right", no_wrap=True)
    for name, costs in rows.items():
        sizes = (costs.uplink, costs.downlink, costs.once, costs.held)
        flops, capacity = costs.flops, costs.capacity
        table.add_row(
            name,
            *map(format_bytes, sizes),
            "-" if flops is None else f"{flops / 1e6:.3g}",
            f"{costs.milliseconds:.3g}",
            *map(str, capacity),
        )
    console = Console(highlight=False)
    console.print(table)
    items = {costs.client_items: costs.items for costs in rows.values()}
    own = " or ".join(f"{number:,}" for number in items)
    size = " or ".join(format_bytes(mean) for mean in items.values())
    console.print(
        f"{data}; MFLOP and ms: the local training of one client with {own} "
        f"training items, the median; its items take {size} more (mean)",
        markup=False,
        soft_wrap=True,
    )


def describe_data(prepared: Prepared) -> str:
    """Returns the data of a row in words."""
    dataset = prepared.dataset
    return f"{dataset.name}: {dataset.num_users:,} clients, {dataset.num_items:,} items"


def main(argv: list[str]) -> int:
    """Measures the rows and returns the exit code."""

    def work() -> None:
        settings = cli.settings_from_flags()
        given = flags.FLAGS.vary
        texts = ITEM_EMBEDDINGS
        if given:
            texts = {str(number): text for number, text in enumerate(given)}
        configs = {  # a bad row raises here
            name: cli.configure_row(apply(settings, read_row(text)))
            for name, text in texts.items()
        }
        rows: dict[str, Costs] = {}
        data: list[str] = []
        with (
            open_lines(flags.FLAGS.json) as lines,
            tempfile.TemporaryDirectory() as folder,
            contextlib.closing(ConsoleReporter()) as callback,
        ):
            for name, config in configs.items():
                callback.note(f"row {name}: {texts[name]}")
                kept = pathlib.Path(folder) / "pretraining"
                costs, prepared = measure_row(config, callback, kept)
                rows[name] = costs
                data.append(describe_data(prepared))
                if lines is not None:
                    entry = {"row": name, "settings": texts[name], **costs.flat()}
                    print(json.dumps(entry), file=lines, flush=True)
        for name, text in texts.items():
            print(f"row {name}: {text}")
        print_table(rows, " or ".join(dict.fromkeys(data)))

    return cli.exit_code(work, argv)
