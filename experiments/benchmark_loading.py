r"""Times how data sets are read and prepared, and the memory that it takes.

    python experiments/benchmark_loading.py --data_dir=DIR             # MovieLens-1M
    python experiments/benchmark_loading.py --interactions=20000000    # generated

Each case runs in a process of its own, first without and then with a prepared copy in
the cache, and reports seconds to a split data set and the peak of resident memory.
"""

import json
import multiprocessing
import os
import resource
import sys
import tempfile
import time
from collections.abc import Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from absl import app, flags
from rich.console import Console
from rich.table import Table

from fedpeft_jax.data import DataSettings, load, make_split
from fedpeft_jax.data.dataset import Dataset
from fedpeft_jax.data.synthetic import generate_long_tailed

_DATA_DIR = flags.DEFINE_string("data_dir", None, "folder of ml-1m.zip")
_INTERACTIONS = flags.DEFINE_integer("interactions", 0, "rows to generate", 0)
_USERS = flags.DEFINE_integer("users", 200_000, "users among them", 1)
_ITEMS = flags.DEFINE_integer("items", 50_000, "items among them", 4)
_FORMATS = flags.DEFINE_list("formats", ["csv", "parquet"], "of the generated table")
_JSON = flags.DEFINE_string("json", None, "file to write the results to")


def write_table(path: Path, rows: int, users: int, items: int) -> None:
    """Writes generated interactions, in random order, with times and ratings."""
    data: Dataset = generate_long_tailed(0, users, items, rows / users / 0.97)
    rng = np.random.default_rng(0)
    owners = np.repeat(np.arange(users), np.diff(data.offsets))
    order = rng.permutation(len(owners))
    frame = pl.DataFrame(
        {
            "user_id": owners[order] + 1,
            "item_id": data.items[order] + 1,
            "rating": rng.integers(1, 6, len(order)),
            "timestamp": 10**9 + rng.integers(0, 10**8, len(order)),
        }
    )
    if path.suffix == ".parquet":
        frame.write_parquet(path)
    else:
        frame.write_csv(path)


def _measure(settings: DataSettings, pipe: Connection) -> None:
    start = time.perf_counter()
    dataset, split = make_split(load(settings), settings)
    seconds = time.perf_counter() - start
    unit = 1 if sys.platform == "darwin" else 1024
    peak = unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    facts = {
        "users": dataset.num_users,
        "items": dataset.num_items,
        "interactions": len(dataset.items),
        "train_pairs": len(split.train),
    }
    pipe.send({**facts, "seconds": seconds, "peak_rss_bytes": peak})


def measure(settings: DataSettings) -> dict[str, Any]:
    """Loads and splits a data set in a process of its own."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    worker = context.Process(target=_measure, args=(settings, theirs))
    worker.start()
    theirs.close()
    result: dict[str, Any] = ours.recv()
    worker.join()
    return result


def main(argv: Sequence[str]) -> int:
    """Runs all cases and prints them; returns the exit code."""
    del argv
    results: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as folder:
        os.environ["XDG_CACHE_HOME"] = folder  # nothing prepared yet
        cases = {}
        if _DATA_DIR.value:
            cases["ml-1m"] = DataSettings(dataset="ml-1m", data_dir=_DATA_DIR.value)
        for form in _FORMATS.value if _INTERACTIONS.value else ():
            path = Path(folder) / f"table.{form}"
            write_table(path, _INTERACTIONS.value, _USERS.value, _ITEMS.value)
            cases[form] = DataSettings(dataset="table", interactions=str(path))
        for name, settings in cases.items():
            results[name] = measure(settings)
            results[f"{name}, cached"] = measure(settings)
    if not results:
        remedy = "set --data_dir or --interactions"
        print(f"error: nothing to read: {remedy}", file=sys.stderr)
        return 2
    table = Table("")
    for name in results:
        table.add_column(name, justify="right")
    for key in ("users", "items", "interactions"):
        table.add_row(key, *(f"{r[key]:,}" for r in results.values()))
    table.add_row("seconds", *(f"{r['seconds']:.1f}" for r in results.values()))
    peaks = (f"{r['peak_rss_bytes'] / 1e9:.2f}" for r in results.values())
    table.add_row("peak memory, GB", *peaks)
    Console().print(table)
    if _JSON.value:
        Path(_JSON.value).write_text(json.dumps(results, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    app.run(main)
