"""The summary of a finished run, as `summary.json` holds it (format 1)."""

import dataclasses
import importlib.metadata
import platform
import resource
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from fedpeft_jax.core.roles import SENT, num_bytes, select
from fedpeft_jax.core.typing import Variables
from fedpeft_jax.data import Split, describe_candidates
from fedpeft_jax.evaluation import (
    BASELINES,
    AnyRanks,
    Evaluator,
    Known,
    ScoreFn,
    summarize_ranks,
)
from fedpeft_jax.evaluation.baselines import random_baseline
from fedpeft_jax.evaluation.per_user import Results, leak, slices
from fedpeft_jax.evaluation.ranking import RANKING_KEYS, RANKINGS, TARGETS, Progress
from fedpeft_jax.experiment.build import make_faults, make_model
from fedpeft_jax.experiment.communication import summarize_traffic
from fedpeft_jax.experiment.config import RunConfig
from fedpeft_jax.experiment.preparation import Prepared, candidates_source
from fedpeft_jax.experiment.privacy_plan import PrivacyPlan
from fedpeft_jax.experiment.privacy_report import summarize_privacy
from fedpeft_jax.experiment.protocol import describe_protocol
from fedpeft_jax.experiment.state import RunState
from fedpeft_jax.experiment.traffic import PhaseTraffic
from fedpeft_jax.experiment.warnings import find_warnings
from fedpeft_jax.federated import Sampler, init_server, num_attackers

FORMAT = 1
_PACKAGES = ("fedpeft_jax", "jax", "jaxlib", "flax", "optax", "numpy")


def rank_all(
    config: RunConfig,
    prepared: Prepared,
    evaluator: Evaluator,
    score: ScoreFn,
    variables: Variables,
    sampler: Sampler,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Ranks the held-out items by the model and by the baselines of the configuration.

    Args:
      config: the configuration.
      prepared: data and pretraining.
      evaluator: evaluator of the split.
      score: the model's score function.
      variables: the model's variables by collection.
      sampler: the sampler that the model was trained with, for the leak detector.
      progress: called after every block of clients with the blocks that are ranked and
        those of all rankings; it may raise to end the evaluation.

    Returns:
      Ranks by name (`'model'` first), then by target, then by ranking.
    """
    split = prepared.split
    known = Known(
        split=split,
        latents=prepared.item_features.latents,
        expected_negatives=sampler.expected(split),
        features=config.model.features,
        seed=config.run.seed,
    )
    scored: dict[str, Any] = {"model": (score, variables)}
    for name in config.baseline_names:
        # `random_baseline` computes a random order in closed form, without a ranking.
        if name != "random" and (made := BASELINES[name](known)) is not None:
            scored[name] = made
    targets = [target for target in TARGETS if evaluator.clients(target).size]
    passes = [
        (name, target, ranking)
        for name in scored
        for target in targets
        for ranking in RANKINGS
    ]
    total = sum(evaluator.num_blocks(ranking) for _, _, ranking in passes)
    before = 0
    found: dict[str, Any] = {name: {t: {} for t in targets} for name in scored}

    def report(done: int, of_pass: int) -> None:
        if progress is not None:
            progress(before + done, total)

    for name, target, ranking in passes:
        score_fn, arrays = scored[name]
        ranks = evaluator.ranks(score_fn, arrays, target, ranking, report)
        found[name][target][ranking] = ranks
        before += evaluator.num_blocks(ranking)
    return found


def summarize_run(
    *,
    config: RunConfig,
    prepared: Prepared,
    figures: Mapping[str, Any],
    ranks: Results,
    state: RunState,
    evaluated: tuple[int, Variables],
    history: Sequence[Mapping[str, Any]],
    traffic: Sequence[PhaseTraffic],
    clock: Mapping[str, float],
    privacy: PrivacyPlan | None = None,
) -> dict[str, Any]:
    """Returns the content of `summary.json`.

    Args:
      config: the configuration.
      prepared: data and pretraining.
      figures: figures of what the server learned for the model.
      ranks: the result of `rank_all`.
      state: the state after the last round.
      evaluated: the round of the model that was ranked, and its variables.
      history: the entries of `metrics.jsonl`.
      traffic: the bytes of each phase that ran.
      clock: seconds by stage.
      privacy: the privacy of the run; None for none.
    """
    split = prepared.split
    metrics = {
        name: {target: _by_key(rankings) for target, rankings in targets.items()}
        for name, targets in ranks.items()
    }
    if "random" in config.baseline_names:
        metrics["random"] = {
            target: {
                RANKING_KEYS[ranking]: values  # type: ignore[index]
                for ranking, values in random_baseline(
                    split, prepared.candidates, target
                ).items()
            }
            for target in metrics["model"]
        }
    validated = [entry for entry in history if entry["metrics"]]
    best = max(validated, key=valid_ndcg, default=None)
    phases = len(traffic)
    source = candidates_source(config, prepared.dataset)
    given = describe_candidates(source, prepared.candidates) if source else None
    summary = {
        "format": FORMAT,
        "config": config.flat(),
        "dataset": {
            "name": prepared.dataset.name,
            "users": split.num_clients,
            "evaluated_users": len(split.evaluated),
            "items": split.num_items,
            "train_pairs": len(split.train.values),
            **_held_out_pairs(split),
            "split": split.name,
            "notes": list(prepared.dataset.notes),
        },
        "protocol": describe_protocol(config, leak(ranks), given),
        "metrics": metrics.pop("model"),
        "slices": slices(split, ranks["model"]["test"]),
        "best_valid": best
        and {"round": best["round"], "metrics": best["metrics"]["valid"]},
        "baselines": metrics,
        "rounds": {"run": state.round, "evaluated": evaluated[0]},
        "pretraining": {**prepared.pretraining, "embedding": dict(figures)},
        "communication": summarize_traffic(
            phases=traffic,
            rounds=state.phase_rounds[:phases].tolist(),
            participations=state.phase_clients[:phases].tolist(),
            answers=state.phase_answers[:phases].tolist(),
            missed=state.phase_missed.tolist(),
            slowest=state.phase_slowest.tolist(),
            merges=max(int(state.version), 0),
            participants=int(state.took_part.sum()),
            server=evaluated[1],
            full_bytes=_full_bytes(config, split.num_items),
            touched=state.phase_touched[:phases].tolist(),
            link=config.link,
        ),
        "faults": {
            "vanished_clients": int(np.sum(state.phase_clients - state.phase_answers)),
            "dropped_clients": int(np.sum(state.phase_dropped)),
            "sign_flipping_clients": num_attackers(
                make_faults(config.training, config.server),
                state.rounds.key,
                split.num_clients,
            ),
        },
        "privacy": summarize_privacy(privacy, state),
        "time": {
            **{name: round(seconds, 3) for name, seconds in clock.items()},
            "rounds_per_s": state.round / max(clock["rounds_s"], 1e-9),
        },
        "memory": {"peak_rss_bytes": peak_rss_bytes()},
        "versions": {
            "python": platform.python_version(),
            **{name: _version(name) for name in _PACKAGES},
        },
    }
    has_text = prepared.dataset.item_text is not None
    warnings = find_warnings(config, summary, ranks, history, has_text=has_text)
    return {**summary, "warnings": warnings}


def _by_key(rankings: Mapping[Any, AnyRanks]) -> dict[str, dict[str, float]]:
    return {
        RANKING_KEYS[ranking]: summarize_ranks(r) for ranking, r in rankings.items()
    }


def _held_out_pairs(split: Split) -> dict[str, int]:
    """Returns the numbers of held-out items, if a user has several."""
    if split.all_valid is None and split.all_test is None:
        return {}
    return {f"{target}_pairs": len(split.held_out(target).values) for target in TARGETS}


def valid_ndcg(entry: Mapping[str, Any]) -> float:
    """Returns the NDCG@10 of a validation, by which validations are compared.

    Args:
      entry: an entry of `metrics.jsonl`.

    Returns:
      The NDCG@10 in the sampled ranking; NaN if there are no validation items.

    Example:
      >>> valid_ndcg({"metrics": {"valid": {"sampled": {"ndcg@10": 0.25}}}})
      0.25
    """
    metrics = entry["metrics"].get("valid")
    return metrics["sampled"]["ndcg@10"] if metrics else float(np.nan)


def peak_rss_bytes() -> int:
    """Returns the peak resident memory of this process so far, in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _full_bytes(config: RunConfig, num_items: int) -> int:
    """Returns the bytes of one direction with a trained table and nothing else."""
    settings = dataclasses.replace(config.model, full="trained", embedding="none")
    model = make_model(settings, num_items)
    server = jax.eval_shape(lambda: init_server(model, jax.random.key(0)))
    return num_bytes(select(server, SENT))


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"
