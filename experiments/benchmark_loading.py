"""Measures the time and the memory that it takes to read and prepare data sets.

    python experiments/benchmark_loading.py --data_dir=DIR             # MovieLens-1M
    python experiments/benchmark_loading.py --interactions=20000000    # generated

Each case runs in separate processes, first without and then with a prepared copy in the
cache. The results are the median number of seconds until the data set is split, and the
peak of resident memory.
"""

import json
import multiprocessing
import os
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from absl import flags
from rich.console import Console
from rich.table import Table

from fedpeft_jax import DataSettings, InputError
from fedpeft_jax.data import generate_long_tailed, load, make_split


def write_table(path: Path, rows: int, users: int, items: int) -> None:
    """Writes generated interactions, in random order, with times and ratings."""
    data = generate_long_tailed(0, users, items, rows / users / 0.97)
    rng = np.random.default_rng(0)
    order = rng.permutation(len(data.items.values))
    frame = pl.DataFrame(
        {
            "user_id": data.items.owners[order] + 1,
            "item_id": data.items.values[order] + 1,
            "rating": rng.integers(1, 6, len(order)),
            "timestamp": 10**9 + rng.integers(0, 10**8, len(order)),
        }
    )
    if path.suffix == ".parquet":
        frame.write_parquet(path)
    else:
        frame.write_csv(path)


def _measure(settings: DataSettings, cache: str, pipe: Connection) -> None:
    os.environ["XDG_CACHE_HOME"] = cache
    start = time.perf_counter()
    try:
        dataset, split = make_split(load(settings), settings)
    except InputError as error:
        pipe.send(error)
        return
    seconds = time.perf_counter() - start
    unit = 1 if sys.platform == "darwin" else 1024
    peak = unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    facts = {
        "users": dataset.num_users,
        "items": dataset.num_items,
        "interactions": len(dataset.items.values),
        "train_pairs": len(split.train.values),
    }
    pipe.send({**facts, "seconds": seconds, "peak_rss_bytes": peak})


def measure(settings: DataSettings, cache: str) -> dict[str, Any]:
    """Loads and splits a data set in a separate process.

    Args:
      settings: the settings of the data set.
      cache: the user's cache folder in that process.

    Returns:
      The sizes of the data set, the seconds and the peak of resident memory.

    Raises:
      InputError: for files that cannot be read.
    """
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    worker = context.Process(target=_measure, args=(settings, cache, theirs))
    worker.start()
    theirs.close()
    answer: dict[str, Any] | InputError = ours.recv()  # EOFError if it died
    worker.join()
    if isinstance(answer, InputError):
        raise answer
    return answer


def repeat(settings: DataSettings, repeats: int) -> list[dict[str, Any]]:
    """Returns median seconds and highest peaks, without and with a prepared copy.

    Args:
      settings: the settings of the data set.
      repeats: runs per case.
    """
    samples: list[list[dict[str, Any]]] = [[], []]
    for _ in range(repeats):
        with tempfile.TemporaryDirectory() as cache:
            for list_ in samples:
                list_.append(measure(settings, cache))
    return [
        {
            **several[0],
            "seconds": statistics.median(s["seconds"] for s in several),
            "samples": [s["seconds"] for s in several],
            "peak_rss_bytes": max(s["peak_rss_bytes"] for s in several),
        }
        for several in samples
    ]


def _parse(argv: Sequence[str]) -> flags.FlagValues:
    values = flags.FlagValues()  # not the global flags, which another main may define
    given: Any = {"flag_values": values}
    flags.DEFINE_string("data_dir", None, "folder of ml-1m.zip", **given)
    flags.DEFINE_integer("interactions", 0, "number of generated rows", 0, **given)
    flags.DEFINE_integer("users", 200_000, "number of users in them", 1, **given)
    flags.DEFINE_integer("items", 50_000, "number of items in them", 4, **given)
    kinds = "file format of the generated table; may be repeated"
    flags.DEFINE_multi_enum("format", ["csv"], ["csv", "parquet"], kinds, **given)
    flags.DEFINE_integer("repeats", 3, "runs per case", 1, **given)
    flags.DEFINE_string("json", None, "file to write the results to", **given)
    flags.DEFINE_boolean("help", False, "show this help", **given)
    try:
        rest = values(argv)[1:]
    except flags.Error as error:
        raise InputError(" ".join(str(error).split())) from None
    if rest:
        raise InputError(f"unexpected argument {rest[0]!r}: see --help")
    if values.help:
        print(__doc__, values.get_help(), sep="\n")
    elif not (values.data_dir or values.interactions):
        raise InputError("nothing to read: set --data_dir or --interactions")
    if values.json and not Path(values.json).parent.is_dir():
        raise InputError(f"--json={values.json}: there is no such folder")
    return values


def _results(values: flags.FlagValues) -> dict[str, dict[str, Any]]:
    with tempfile.TemporaryDirectory() as folder:
        cases = {}
        if values.data_dir:
            cases["ml-1m"] = DataSettings(dataset="ml-1m", data_dir=values.data_dir)
        for kind in values.format if values.interactions else ():
            path = Path(folder) / f"table.{kind}"
            write_table(path, values.interactions, values.users, values.items)
            cases[kind] = DataSettings(dataset="table", interactions=str(path))
        results: dict[str, dict[str, Any]] = {}
        for name, settings in cases.items():
            cold, cached = repeat(settings, values.repeats)
            results |= {name: cold, f"{name}, cached": cached}
    return results


def main(argv: Sequence[str]) -> int:
    """Runs all cases, prints them and returns the exit code, 2 for bad input."""
    try:
        values = _parse(argv)
        if values.help:
            return 0
        results = _results(values)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
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
    if values.json:
        Path(values.json).write_text(json.dumps(results, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
