"""The summary of a finished run, as `summary.json` holds it (format 1)."""

import importlib.metadata
import platform
import resource
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from fedpeft_jax.core.typing import PyTree
from fedpeft_jax.evaluation.baselines import BASELINES, Known, random_baseline
from fedpeft_jax.evaluation.metrics import summarize
from fedpeft_jax.evaluation.per_user import leak, slices
from fedpeft_jax.evaluation.ranking import RANKINGS, TARGETS, Evaluator, Ranks, ScoreFn
from fedpeft_jax.experiment.communication import PhaseTraffic, summarize_traffic
from fedpeft_jax.experiment.config import RunConfig
from fedpeft_jax.experiment.preparation import Prepared
from fedpeft_jax.experiment.protocol import describe_protocol
from fedpeft_jax.federated.state import init_server

FORMAT = 1
_PACKAGES = ("fedpeft_jax", "jax", "jaxlib", "flax", "optax", "numpy")


def rank_all(
    config: RunConfig,
    prepared: Prepared,
    evaluator: Evaluator,
    score: ScoreFn,
    params: PyTree,
) -> dict[str, dict[str, dict[str, Ranks]]]:
    """Ranks the held-out items by the model and by each baseline that was asked for.

    Returns:
      Ranks by name (`'model'` first), target and ranking.
    """
    known = Known(
        split=prepared.split,
        latents=prepared.item_features.latents,
        num_negatives=config.num_negatives,
        num_slots=config.negative_slots,
        exclude_held_out=config.train_negatives == "unseen",
        features=config.features,
        seed=config.seed,
    )
    scored = {"model": (score, params)}
    for name in config.baseline_names:
        # A random order is worth the same whatever the draw: it has a closed form.
        if name != "random" and (made := BASELINES[name](known)) is not None:
            scored[name] = made
    targets = [target for target in TARGETS if evaluator.clients(target).size]
    return {
        name: {
            target: {
                ranking: evaluator.ranks(*pair, target, ranking) for ranking in RANKINGS
            }
            for target in targets
        }
        for name, pair in scored.items()
    }


def summarize_run(
    *,
    config: RunConfig,
    prepared: Prepared,
    figures: Mapping[str, Any],
    ranks: Mapping[str, Mapping[str, Mapping[str, Ranks]]],
    params: PyTree,
    rounds: Mapping[str, int],
    history: Sequence[Mapping[str, Any]],
    phases: dict[str, tuple[PhaseTraffic, int]],
    participants: int,
    clock: Mapping[str, float],
) -> dict[str, Any]:
    """Gathers all figures of a run.

    Args:
      config: the settings.
      prepared: data and pretraining.
      figures: of what the model learned on the server.
      ranks: what `rank_all` returned.
      params: the model's variables by collection.
      rounds: how many were run, and after how many of them the params were.
      history: the entries of `metrics.jsonl`.
      phases: each phase's traffic and number of rounds.
      participants: clients that ever took part.
      clock: seconds by stage.
    """
    split = prepared.split
    metrics = {
        name: {
            target: {ranking: summarize(found) for ranking, found in rankings.items()}
            for target, rankings in targets.items()
        }
        for name, targets in ranks.items()
    }
    if "random" in config.baseline_names:
        metrics["random"] = {
            target: random_baseline(split, prepared.candidates, target)
            for target in metrics["model"]
        }
    validated = [entry for entry in history if entry["metrics"]]
    best = max(validated, key=valid_ndcg, default=None)
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
            "name": prepared.dataset.name,
            "users": split.num_clients,
            "evaluated_users": len(split.evaluated),
            "items": split.num_items,
            "train_pairs": len(split.train),
            "split": split.name,
            "notes": list(prepared.dataset.notes),
        },
        "protocol": describe_protocol(config, leak(ranks)),
        "metrics": metrics.pop("model"),
        "slices": slices(split, ranks["model"]["test"]),
        "best_valid": best
        and {"round": best["round"], "metrics": best["metrics"]["valid"]},
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
    """Returns what validation rounds are compared by: NDCG@10, sampled candidates.

    NaN where there is no validation item.
    """
    metrics = entry["metrics"].get("valid")
    return metrics["sampled"]["ndcg@10"] if metrics else float(np.nan)


def peak_rss_bytes() -> int:
    """Returns the largest memory that this process held so far."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _full_table(config: RunConfig, num_items: int) -> PyTree:
    """The shapes of the same run's variables with a trained table and no adapter."""
    same = {**vars(config), "warm_up_rounds": 0, "full_init": "text"}
    full = RunConfig(**{**same, "full": "trained", "embedding": "none"})
    model = full.make_model(num_items)
    return jax.eval_shape(lambda: init_server(model, jax.random.key(0)))


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"
