"""Summaries of runs that nobody ran, made by hand."""

import json
import pathlib

from fedpeft_jax.experiment.finished import FinishedRun

_COMMON = {
    "rounds": 1000,
    "upload": "identity",
    "download": "identity",
    "proximal": 0.0,
    "merge_every": 0,
    "num_candidates": 100,
    "server_optimizer": "sgd()",
}
FULL = {**_COMMON, "full": "trained", "embedding": "none"}
LORA = {**_COMMON, "full": "frozen", "embedding": "lora"}


def make_summary(
    settings,
    seed=0,
    size=100,
    ndcg=0.25,
    full_size=100,
    dataset=None,
    **more,
):
    """A summary with what comparisons of runs read; `more` are further settings."""

    def metrics(value):
        found = {"hit_rate@10": round(2 * value, 6), "ndcg@10": value}
        return {
            "test": {"sampled": found, "full": {k: v / 5 for k, v in found.items()}}
        }

    return {
        "format": 1,
        "config": {**settings, **more, "seed": seed},
        "dataset": dataset or {"name": "toy", "users": 9, "notes": []},
        "metrics": metrics(ndcg),
        "baselines": {"most_popular": metrics(0.1)},
        "communication": {"total_bytes": size, "full_total_bytes": full_size},
    }


def make_run(settings, **more):
    """A run with a summary of `make_summary`."""
    return FinishedRun(pathlib.Path("toy"), make_summary(settings, **more))


def write_grid(folder, rows, seeds=(0,), **more):
    """Writes the summaries of a grid's rows; row n sends 100 n + 100 bytes."""
    for number, settings in enumerate(rows):
        for seed in seeds:
            run = folder / f"row{number}-seed{seed}"
            run.mkdir(parents=True)
            summary = make_summary(
                settings,
                seed=seed,
                size=100 * number + 100,
                ndcg=0.2 + 0.1 * number + 0.01 * seed,
                **more,
            )
            (run / "summary.json").write_text(json.dumps(summary))
    return folder
