"""The summary of a finished run, as `summary.json` holds it (format 1)."""

import dataclasses
import importlib.metadata
import platform
import resource
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

import jax

from fedpeft_jax.baselines import BASELINES
from fedpeft_jax.communication import PhaseTraffic, summarize_traffic
from fedpeft_jax.config import RunConfig
from fedpeft_jax.evaluation import Evaluator, ScoreFn
from fedpeft_jax.federated.state import init_server
from fedpeft_jax.preparation import Prepared
from fedpeft_jax.typing import PyTree

FORMAT = 1
_PACKAGES = ("fedpeft_jax", "jax", "jaxlib", "flax", "optax", "numpy")


def summarize_run(
    *,
    config: RunConfig,
    prepared: Prepared,
    figures: Mapping[str, Any],
    evaluator: Evaluator,
    score: ScoreFn,
    params: PyTree,
    rounds: Mapping[str, int],
    history: Sequence[Mapping[str, Any]],
    phases: dict[str, tuple[PhaseTraffic, int]],
    participants: int,
    clock: Mapping[str, float],
) -> dict[str, Any]:
    """Evaluates the last round's model and the baselines, and gathers all figures.

    Args:
      config: the settings.
      prepared: data and pretraining.
      figures: of what the model learned on the server.
      evaluator: of the same data.
      score: the model's scores.
      params: the model's variables by collection.
      rounds: how many were run, and after how many of them the params were.
      history: the entries of `metrics.jsonl`.
      phases: each phase's traffic and number of rounds.
      participants: clients that ever took part.
      clock: seconds so far by stage.
    """
    split = prepared.split
    start = time.perf_counter()
    scored = {"model": (score, params)}
    scored |= {name: make(split) for name, make in BASELINES.items()}
    metrics = {
        name: {target: evaluator(*pair, target) for target in ("valid", "test")}
        for name, pair in scored.items()
    }
    clock = {**clock, "evaluate_s": clock["evaluate_s"] + time.perf_counter() - start}
    best = max(history, key=valid_ndcg)
    full = PhaseTraffic.of(
        _full_table(config, split.num_items),
        split.counts,
        split.num_items,
        config.num_negatives,
    )
    return {
        "format": FORMAT,
        "config": config.settings(),
        "dataset": {
            "users": split.num_clients,
            "evaluated_users": len(split.evaluated),
            "items": split.num_items,
            "train_pairs": len(split.train),
            "split": split.name,
        },
        "metrics": metrics.pop("model"),
        "best_valid": {"round": best["round"], "metrics": best["metrics"]["valid"]},
        "baselines": metrics,
        "rounds": dict(rounds),
        "pretraining": {**prepared.pretraining, "embedding": dict(figures)},
        "communication": summarize_traffic(
            phases=phases,
            cohort_size=config.cohort(split.num_clients),
            participants=participants,
            frozen=params,
            full_dense=full.dense,
        ),
        "time": {
            **{name: round(seconds, 3) for name, seconds in clock.items()},
            "rounds_per_s": rounds["run"] / max(clock["rounds_s"], 1e-9),
        },
        "memory": {"peak_rss_bytes": peak_rss_bytes()},
        "versions": {
            "python": platform.python_version(),
            **{name: _version(name) for name in _PACKAGES},
        },
    }


def valid_ndcg(entry: Mapping[str, Any]) -> float:
    """Returns what validation rounds are compared by: NDCG@10, sampled candidates."""
    return entry["metrics"]["valid"]["sampled"]["ndcg@10"]


def peak_rss_bytes() -> int:
    """Returns the largest memory that this process held so far."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _full_table(config: RunConfig, num_items: int) -> PyTree:
    """The shapes of the same run's variables with a trained table and no adapter."""
    same = {**dataclasses.asdict(config), "warm_up_rounds": 0, "full_init": "text"}
    full = RunConfig(**{**same, "full": "trained", "embedding": "none"})
    model = full.make_model(num_items)
    return jax.eval_shape(lambda: init_server(model, jax.random.key(0)))


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"
