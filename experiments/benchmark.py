r"""Measures the time and the memory of federated rounds.

    python experiments/benchmark.py --data_dir=DIR         # MovieLens-1M
    python experiments/benchmark.py --settings=lora --users=1000000 --items=1000000 \
        --mean_length=20 --cohort_size=1000                # generated data of any size
    python experiments/benchmark.py --scaling --mean_length=20 --cohort_size=1000

A chunk of rounds is one dispatch and one sample of the milliseconds per round.
Compilation and preparation are reported separately. If there are several cases
(settings, or the catalogues of `--scaling`), each runs in its own process, so that each
has its own peak memory. Their chunks take turns, so that a machine that becomes slower
affects all of them.
"""

import json
import multiprocessing
import os
import platform
import statistics
import sys
from collections.abc import Callable, Iterator, Sequence
from importlib import metadata
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from absl import flags
from rich.console import Console
from rich.table import Table

from benchmark_case import SETTINGS, Case, measure
from fedpeft_jax import InputError, configure

_DEFAULT_SETTINGS = "full,lora,hash,rq,fedpergnn_full,pfedrec_full,fedncf_full"


def _parse(argv: Sequence[str]) -> Case:
    defaults = configure(full="trained", embedding="none").server
    values = flags.FlagValues()  # not the global ones, which another main may define

    def integer(name: str, default: int, text: str, least: int = 1) -> None:
        flags.DEFINE_integer(name, default, text, least, flag_values=values)

    def boolean(name: str, text: str) -> None:
        flags.DEFINE_boolean(name, False, text, flag_values=values)

    def string(name: str, default: str | None, text: str) -> None:
        flags.DEFINE_string(name, default, text, flag_values=values)

    string("settings", None, f"some of {', '.join(SETTINGS)}, separated by commas")
    string("data_dir", None, "folder of ml-1m.zip; without it, data are generated")
    integer("users", 6040, "number of generated users")
    integer("items", 3706, "number of generated items")
    integer("mean_length", 165, "mean number of items per generated user")
    integer("cohort_size", 604, "clients per round")
    integer("rounds", 200, "timed rounds, rounded up to whole chunks")
    integer("chunk_rounds", 20, "rounds per dispatch, which is one sample")
    integer("features", 32, "length of an item vector")
    string("aggregator", defaults.aggregator, "spec of an aggregator")
    string("upload", "identity", "specs of upload stages, separated by commas")
    string("download", "identity", "specs of download stages, separated by commas")
    string("both_ways", None, "stages for both directions, compared: 'identity;int8'")
    string("privacy", "none", "mechanisms, compared: 'none;gaussian(...)'")
    string("privacy_model", "central", "central or local")
    step = defaults.server_optimizer
    string("server_optimizer", step, "spec of the server's optimizer")
    integer("tile_rows", 4096, "positives per tile, padding included")
    integer("max_buckets", 6, "most length buckets")
    integer("client_chunk", 0, "most clients per tile; 0 for no bound", 0)
    integer("seed", 0, "seed of the generated data and of the run", 0)
    boolean("scaling", "compare catalogues of different sizes, with generated data")
    string("scaling_items", "10000,100000,1000000", "sizes of these catalogues")
    string("json", None, "file to write the results to")
    boolean("help", "show this help")
    try:
        rest = values(argv)[1:]
    except flags.Error as error:
        raise InputError(" ".join(str(error).split())) from None
    if rest:
        raise InputError(f"unexpected argument {rest[0]!r}: see --help")
    if values.help:
        print(__doc__, values.get_help(), sep="\n")
    return dict(values.flag_values_dict())


def _cases(case: Case) -> list[Case]:
    default = "lora" if case["scaling"] else _DEFAULT_SETTINGS
    settings = (case["settings"] or default).split(",")
    for name in settings:
        if name not in SETTINGS:
            raise InputError(f"unknown setting {name!r}: use {', '.join(SETTINGS)}")
    sizes = [case["items"]]
    if case["scaling"]:
        if case["data_dir"] is not None:
            raise InputError("--scaling generates its data: drop --data_dir")
        try:
            sizes = [int(size) for size in case["scaling_items"].split(",")]
        except ValueError:
            text = case["scaling_items"]
            raise InputError(f"--scaling_items={text!r}: write 1000,2000") from None
    pipelines: list[dict[str, str]] = [{}]
    if case["both_ways"]:
        names = case["both_ways"].split(";")
        pipelines = [{"upload": name, "download": name} for name in names]
    return [
        {**case, "setting": n, "items": i, "privacy": mechanism, **stages}
        for n in settings
        for i in sizes
        for mechanism in case["privacy"].split(";")
        for stages in pipelines
    ]


def _serve(case: Case, pipe: Connection) -> None:
    """Sends the next result of `measure` for every True that the pipe receives."""
    measured = measure(case)
    while pipe.recv():
        try:
            pipe.send(next(measured, None))
        except InputError as error:
            pipe.send(error)


def _in_process(case: Case) -> Iterator[dict[str, Any]]:
    # Other workers need memory on an accelerator, too.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    worker = context.Process(target=_serve, args=(case, theirs), daemon=True)
    worker.start()
    theirs.close()
    while True:
        ours.send(True)
        answer = ours.recv()  # EOFError if the worker died; it printed the reason
        if isinstance(answer, InputError):
            raise answer
        if answer is None:
            break
        yield answer
    ours.send(False)
    worker.join()


def _time(cases: Sequence[Case]) -> list[dict[str, Any]]:
    """Returns the facts and times of all cases, whose chunks take turns."""
    run = measure if len(cases) == 1 else _in_process
    sources = [run(case) for case in cases]
    # One after the other, so that no compilation is timed during another one.
    results = [next(source) for source in sources]
    samples = list(zip(*sources, strict=True))
    for result, chunks in zip(results, zip(*samples, strict=True), strict=True):
        times = [chunk["ms"] for chunk in chunks]
        median = statistics.median(times)
        result["ms_per_round"] = {
            "median": median,
            "min": min(times),
            "max": max(times),
            "samples": times,
        }
        result["rounds_per_s"] = 1e3 / median
        result["clients_per_s"] = 1e3 / median * result["cohort_size"]
        result.update((k, v) for k, v in chunks[-1].items() if k != "ms")
        merges = [chunk["merge_ms"] for chunk in chunks if "merge_ms" in chunk]
        result["merge_ms"] = statistics.median(merges) if merges else None
    return results


def scaling_ratios(results: Sequence[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Returns each setting's time for every catalogue relative to its first one."""
    ratios: dict[str, dict[str, float]] = {}
    first: dict[str, list[float]] = {}
    for result in results:
        times = result["ms_per_round"]["samples"]
        base = first.setdefault(result["setting"], times)
        # Samples of the same time are divided, so that a slow minute cancels.
        ratio = statistics.median(t / b for t, b in zip(times, base, strict=True))
        ratios.setdefault(result["setting"], {})[str(result["items"])] = ratio
    return ratios


def _machine() -> dict[str, Any]:
    lines = Path("/proc/cpuinfo")
    names = [
        line.split(":", 1)[1].strip()
        for line in (lines.read_text().splitlines() if lines.exists() else ())
        if line.startswith("model name")
    ]
    return {
        "cpu": (names or [platform.processor() or platform.machine()])[0],
        "cores": os.cpu_count(),
        "load_average": os.getloadavg()[0],
        "python": platform.python_version(),
        "jax": metadata.version("jax"),
    }


def _print(report: dict[str, Any]) -> None:
    machine, results = report["machine"], report["results"]
    load = f"{machine['load_average']:.1f}"
    print(
        f"{machine['cpu']}, {machine['cores']} cores, load {load} before the start; "
        f"jax {machine['jax']} on {results[0]['device']}"
    )
    table = Table("")
    for r in results:
        stages = {r["upload"], r["download"], r["privacy"]} - {"identity", "none"}
        names = [r["setting"], *(stage.partition("(")[0] for stage in sorted(stages))]
        table.add_column("\n".join(names), justify="right")
    rows: dict[str, Callable[[dict[str, Any]], str]] = {
        "users": lambda r: f"{r['users']:,}",
        "items": lambda r: f"{r['items']:,}",
        "clients per round": lambda r: f"{r['cohort_size']:,}",
        "ms per round, median": lambda r: f"{r['ms_per_round']['median']:.1f}",
        "minimum": lambda r: f"{r['ms_per_round']['min']:.1f}",
        "maximum": lambda r: f"{r['ms_per_round']['max']:.1f}",
        "rounds/s": lambda r: f"{r['rounds_per_s']:.1f}",
        "clients/s": lambda r: f"{r['clients_per_s']:,.0f}",
        "ms per merge, median": lambda r: (
            "-" if r["merge_ms"] is None else f"{r['merge_ms']:.1f}"
        ),
        "preparation, s": lambda r: f"{r['prepare_s']['total']:.1f}",
        "compilation, s": lambda r: f"{r['compile_s']:.1f}",
        "peak memory, GB": lambda r: f"{r['peak_rss_bytes'] / 1e9:.2f}",
    }
    for name, text in rows.items():
        table.add_row(name, *map(text, results))
    Console().print(table)
    for name, ratios in report["scaling"].items():
        texts = (f"{ratio:.2f} at {int(items):,}" for items, ratio in ratios.items())
        print(f"{name}: time per round relative to the first: {', '.join(texts)} items")


def main(argv: Sequence[str]) -> int:
    """Runs the benchmark and returns the exit code, which is 2 for bad input."""
    try:
        case = _parse(argv)
        if case["help"]:
            return 0
        target = None if case["json"] is None else Path(case["json"])
        if target and not target.parent.is_dir():
            raise InputError(f"--json={target}: there is no folder {target.parent}")
        machine = _machine()
        results = _time(_cases(case))
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    scaling = scaling_ratios(results) if case["scaling"] else {}
    report = {"format": 1, "machine": machine, "results": results, "scaling": scaling}
    if target:
        target.write_text(json.dumps(report, indent=2) + "\n")
    _print(report)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
