"""What the user of a finished run must know before the result is used.

A warning names a problem that the results show, and settings that may solve it. The
summary holds the warnings, and the console prints them below the table.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from fedpeft_jax.core.specs import name_of
from fedpeft_jax.evaluation.per_user import Results, paired_difference
from fedpeft_jax.evaluation.ranking import RANKING_KEYS, RANKINGS, Ranking
from fedpeft_jax.experiment.config import RunConfig

_STANDARD_ERRORS = 2.0
_LEAST_USERS = 20  # a standard error from fewer users is not reliable
_LAST_PART, _RISE = 0.2, 0.02
_SMALL_SCALE = 0.1
_PARTICIPATIONS = 50
_DEFAULT_STEP, _SMALL_STEP = "sgd(learning_rate=5.0)", "sgd(learning_rate=1.0)"


def find_warnings(
    config: RunConfig,
    summary: Mapping[str, Any],
    ranks: Results,
    history: Sequence[Mapping[str, Any]],
    *,
    has_text: bool,
) -> list[dict[str, Any]]:
    """Returns the warnings about a finished run, the most important one first.

    Args:
      config: the configuration.
      summary: the summary of the run, except for its warnings.
      ranks: the ranks by the model and the baselines, from `rank_all`.
      history: the entries of `metrics.jsonl`.
      has_text: whether the data set has item text.

    Returns:
      `{"kind", "message", "try"}` per warning. `kind` is `'unsound_protocol'`,
      `'leak'`, `'below_popularity'` or `'not_converged'`. Each element of `try` is one
      or more settings, `name=value` separated by spaces, the most promising one first.
    """
    found = protocol_warnings(summary["protocol"])
    rise = _last_rise(history)
    if below := _rankings_below(ranks):
        figures = ", and ".join(_comparison(summary, ranking) for ranking in below)
        remedies = _remedies(config, summary, history, rise is not None, has_text)
        found.append(
            _warning(
                "below_popularity",
                "the model ranks the test items worse than the popularity baseline "
                f"({figures})",
                remedies,
            )
        )
    if rise is not None:
        (first, low), (last, high) = rise
        found.append(
            _warning(
                "not_converged",
                "the last validation is the best, and the validation NDCG@10 was still "
                f"rising ({low:.3f} after round {first}, {high:.3f} after round "
                f"{last})",
                [f"rounds={2 * config.run.rounds}"],
            )
        )
    return found


def protocol_warnings(protocol: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Returns one warning per problem of the protocol.

    Args:
      protocol: the `protocol` part of a summary.

    Example:
      >>> protocol = {"unsound": ["split=file: ..."], "log_odds_over_popularity": None}
      >>> [warning["message"] for warning in protocol_warnings(protocol)]
      ['unsound protocol: split=file: ...']
    """
    found = [
        _warning("unsound_protocol", f"unsound protocol: {choice}", [])
        for choice in protocol["unsound"]
    ]
    leak = protocol["log_odds_over_popularity"]
    if leak is not None and leak["leaks"]:
        errors = leak["difference"] / leak["standard_error"]
        message = (
            "this protocol leaks. The log-odds that an item is a training positive "
            "rather than a negative rank the test items better than popularity does: "
            f"NDCG@10 {leak['difference']:+.4f}, {errors:.0f} standard errors"
        )
        found.append(_warning("leak", message, []))
    return found


def warning_lines(summary: Mapping[str, Any]) -> list[str]:
    """Returns one line per warning of a run, with settings in backticks.

    Args:
      summary: the content of `summary.json`.

    Example:
      >>> warning = {"kind": "x", "message": "it is bad", "try": ["rounds=9", "seed=1"]}
      >>> warning_lines({"warnings": [warning]})
      ['warning: it is bad: try `rounds=9`, or `seed=1`']
    """
    found: Iterable[Mapping[str, Any]] | None = summary.get("warnings")
    if found is None:  # the summary of an older version
        found = protocol_warnings(summary["protocol"])
    return [_line(warning) for warning in found]


def _line(warning: Mapping[str, Any]) -> str:
    remedies = ", or ".join(
        " ".join(f"`{setting}`" for setting in remedy.split())
        for remedy in warning["try"]
    )
    return f"warning: {warning['message']}" + (f": try {remedies}" if remedies else "")


def _warning(kind: str, message: str, remedies: list[str]) -> dict[str, Any]:
    return {"kind": kind, "message": message, "try": remedies}


def _rankings_below(ranks: Results) -> list[Ranking]:
    """Returns the rankings in which the model is significantly below popularity."""
    if len(ranks["model"]["test"]["sampled"].above) < _LEAST_USERS:
        return []
    below = []
    for ranking in RANKINGS:
        compared = paired_difference(
            ranks, "model", "most_popular", metric="hit_rate", ranking=ranking
        )
        if compared is None:
            continue
        difference, error = compared["difference"], compared["standard_error"]
        if difference < 0 and difference < -_STANDARD_ERRORS * error:
            below.append(ranking)
    return below


def _comparison(summary: Mapping[str, Any], ranking: Ranking) -> str:
    """Returns the two hit rates in a ranking as text."""
    model, baseline = (
        metrics["test"][RANKING_KEYS[ranking]]["hit_rate@10"]
        for metrics in (summary["metrics"], summary["baselines"]["most_popular"])
    )
    where = {"sampled": "among sampled items", "catalogue": "among all items"}[ranking]
    return f"HR@10 {model:.3f} against {baseline:.3f} {where}"


def _curve(history: Sequence[Mapping[str, Any]]) -> list[tuple[int, float]]:
    """Returns the round and the NDCG@10 of each validation."""
    return [
        (entry["round"], entry["metrics"]["valid"]["sampled"]["ndcg@10"])
        for entry in history
        if "valid" in entry["metrics"]
    ]


def _last_rise(
    history: Sequence[Mapping[str, Any]],
) -> tuple[tuple[int, float], tuple[int, float]] | None:
    """Returns where the last part of a curve that still rises begins and ends.

    A curve still rises if its last value is the best, and at least 2 % above the one
    before the last fifth of the rounds.
    """
    curve = _curve(history)
    if not curve:
        return None
    last, high = curve[-1]
    before = [point for point in curve if point[0] <= (1 - _LAST_PART) * last]
    if not before or any(value >= high for _, value in curve[:-1]):
        return None
    first, low = before[-1]
    return ((first, low), (last, high)) if high > (1 + _RISE) * low else None


def _remedies(
    config: RunConfig,
    summary: Mapping[str, Any],
    history: Sequence[Mapping[str, Any]],
    rising: bool,
    has_text: bool,
) -> list[str]:
    """Returns settings that may lift a model above popularity, as `name=value`."""
    model, found = config.model, []
    by_row = name_of(config.server.aggregator) in ("row_mean", "sparse_row_mean")
    if not by_row and _trains_rows(config):
        found.append("aggregator=row_mean")
    elif by_row and config.server.server_optimizer == _DEFAULT_STEP:
        found.append(f"server_optimizer={_SMALL_STEP}")
    random = model.full != "none" and model.full_init == "random"
    if random and model.latent_scale > _SMALL_SCALE:
        found.append(f"latent_scale={_SMALL_SCALE}")
    if model.full == "none":
        found.append("full=frozen" if has_text else "full=frozen full_init=random")
    elif model.full == "frozen" and name_of(model.embedding) == "none":
        found.append("embedding=lora")
    elif model.full == "frozen":
        found.append("full=trained embedding=none")
    if random:
        text = "" if has_text else " text_embeddings=FILE.npz"
        found.append(f"full_init=text{text}")
    return found + _lengths(config, summary, history, rising)


def _trains_rows(config: RunConfig) -> bool:
    """Whether some round trains rows of items, which the aggregator combines."""
    lora = name_of(config.model.embedding) == "lora"
    return config.model.full == "trained" or lora or config.run.warm_up_rounds > 0


def _lengths(
    config: RunConfig,
    summary: Mapping[str, Any],
    history: Sequence[Mapping[str, Any]],
    rising: bool,
) -> list[str]:
    """Returns what to try because a run was too short or too long."""
    clients, rounds = summary["dataset"]["users"], summary["rounds"]["run"]
    few = rounds * config.sampling(clients).expected_size < _PARTICIPATIONS * clients
    if rising or few:
        return [f"rounds={2 * config.run.rounds}"]
    curve = _curve(history)
    stops = config.evaluation.early_stopping_rounds
    if not curve or stops:
        return []
    best = max(value for _, value in curve)
    past = best > (1 + _RISE) * curve[-1][1]
    return [f"early_stopping_rounds={max(1, config.run.rounds // 5)}"] if past else []
