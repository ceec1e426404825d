"""Results by client: the table of ranks, slices of the clients, and the leak detector.

A mean over clients does not show for which of them a model works well. Slices by the
activity of the client and by the popularity of the held-out item show it.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl

from fedpeft_jax.core.ragged import Ragged
from fedpeft_jax.data import Dataset, Split
from fedpeft_jax.evaluation.ranking import RANKING_KEYS, Ranking
from fedpeft_jax.evaluation.ranks import AnyRanks, JointRanks

Results = Mapping[str, Mapping[str, Mapping[Ranking, AnyRanks]]]
"""Ranks by model or baseline, then by target, then by ranking."""

_PARTS = ("low", "middle", "high")
_STANDARD_ERRORS = 3.0


def per_user_table(
    dataset: Dataset, split: Split, results: Results, valid_clients: np.ndarray
) -> pl.DataFrame:
    """Returns the ranks of each evaluated client, the content of `per_user.parquet`.

    Args:
      dataset: the data set, which has the original ids.
      split: the training and held-out items.
      results: the ranks of `'model'` and of the baselines.
      valid_clients: int32[...], the clients that have a validation item, ascending.

    Returns:
      One row per client: `user`, `valid_item` and `test_item` are original ids, and
      `train_items` is the number of training items. For each model, target and ranking
      there are the columns `MODEL_TARGET_RANKING_above` and `..._ties`, where the
      ranking is called `sampled` or `full`. The rank is uniform over `above`, ...,
      `above + ties` (0 is first). If a client has several validation or test items,
      there are lists: the columns of items are `valid_items` and `test_items`, and the
      columns of a target have one number per item, in the same order.
    """
    clients = split.evaluated
    users = pl.DataFrame(
        {
            "user": dataset.user_ids[clients].tolist(),
            "train_items": split.counts[clients],
            **_held_out_ids(dataset, split, "valid"),
            **_held_out_ids(dataset, split, "test"),
            "client": clients,
        }
    )
    for target, of_target in (("valid", valid_clients), ("test", clients)):
        columns = {
            f"{model}_{target}_{RANKING_KEYS[ranking]}_{name}": _by_client(ranks, name)
            for model, targets in results.items()
            for ranking, ranks in targets.get(target, {}).items()
            for name in ("above", "ties")
        }
        ranked = pl.DataFrame({"client": of_target, **columns})
        users = users.join(ranked, on="client", how="left", maintain_order="left")
    return users.drop("client")


def _held_out_ids(dataset: Dataset, split: Split, target: str) -> dict[str, list[Any]]:
    """Returns the column of the held-out items, by its name."""
    ids, clients = dataset.item_ids.tolist(), split.evaluated
    if target == "valid":
        first, every = split.valid, split.all_valid
    else:
        first, every = split.test, split.all_test
    if every is not None:
        rows = [[ids[item] for item in every.row(client)] for client in clients]
        return {f"{target}_items": rows}
    held = first[clients].tolist()
    return {f"{target}_item": [ids[item] if item >= 0 else None for item in held]}


def _by_client(ranks: AnyRanks, name: str) -> np.ndarray | list[np.ndarray]:
    """Returns a number per client, or a list of numbers for several targets."""
    values: np.ndarray = getattr(ranks, name)
    if isinstance(ranks, JointRanks):
        return np.split(values, np.cumsum(ranks.counts)[:-1])
    return values


def slices(split: Split, rankings: Mapping[Ranking, AnyRanks]) -> dict[str, Any]:
    """Returns test metrics by the clients' activity, and by their items' popularity.

    The slices are thirds of the evaluated clients, as far as ties allow. The popularity
    of several test items is their mean, and their metrics include `recall@10`.

    Args:
      split: the training and held-out items.
      rankings: the model's test ranks by ranking.

    Returns:
      `{"user_activity": {"low": {"users", "from", "to", "sampled": {"hit_rate@10",
      "ndcg@10"}, "full": ...}, ...}, "item_popularity": ...}`.

    Example:
      >>> from fedpeft_jax.core.ragged import Ragged
      >>> held_out = np.array([-1, -1]), np.array([2, 3])
      >>> split = Split("toy", 4, Ragged.from_rows([[0], [0, 1]]), *held_out)
      >>> from fedpeft_jax.evaluation.ranks import Ranks
      >>> ranks = Ranks(above=np.array([0, 20]), ties=np.array([0, 0]))
      >>> slices(split, {"sampled": ranks})["user_activity"]["low"]["sampled"]
      {'hit_rate@10': 1.0, 'ndcg@10': 1.0}
    """
    clients = split.evaluated
    counts = np.bincount(split.train.values, minlength=split.num_items)
    by = {
        "user_activity": split.counts[clients],
        "item_popularity": _popularity(split, counts),
    }
    result: dict[str, Any] = {}
    for name, values in by.items():
        edges = np.quantile(values, [1 / 3, 2 / 3], method="lower")
        part = np.searchsorted(edges, values, side="left")
        result[name] = {}
        for place, label in enumerate(_PARTS):
            rows = part == place
            if not rows.any():
                continue
            result[name][label] = {
                "users": int(rows.sum()),
                "from": values[rows].min().item(),
                "to": values[rows].max().item(),
                **{
                    RANKING_KEYS[ranking]: {
                        f"{metric}@10": float(
                            ranks.rows(rows).metric(metric, 10).mean()
                        )
                        for metric in _metrics(ranks)
                    }
                    for ranking, ranks in rankings.items()
                },
            }
    return result


def leak(results: Results, targets: Sequence[str] = ("test",)) -> dict[str, Any] | None:
    """Compares the baselines `log_odds` and `most_popular`, client by client.

    Args:
      results: the ranks by model or baseline.
      targets: the held-out items on which the baselines are compared.

    Returns:
      `difference`, the mean paired difference of NDCG@10 in the sampled ranking,
      log-odds minus popularity; `standard_error`, its standard error; and `leaks`,
      whether the difference is more than three standard errors above zero. None if one
      of the two baselines was not measured, or if there is only one rank of each.

    Example:
      >>> from fedpeft_jax.evaluation.ranks import Ranks
      >>> def ranks(*above):
      ...   return {"test": {"sampled": Ranks(np.array(above), np.zeros(3, int))}}
      >>> leak({"log_odds": ranks(0, 0, 1), "most_popular": ranks(9, 9, 8)})["leaks"]
      True
    """
    compared = paired_difference(results, "log_odds", "most_popular", targets=targets)
    if compared is None:
        return None
    mean, error = compared["difference"], compared["standard_error"]
    leaks = mean > _STANDARD_ERRORS * error and mean > 0
    return {**compared, "leaks": bool(leaks)}


def paired_difference(
    results: Results,
    name: str,
    other: str,
    *,
    metric: str = "ndcg",
    ranking: Ranking = "sampled",
    targets: Sequence[str] = ("test",),
) -> dict[str, float] | None:
    """Compares two models or baselines, client by client.

    Both rank the same items of the same clients, so that the mean difference has a much
    smaller standard error than either mean.

    Args:
      results: the ranks by model or baseline.
      name: the model or baseline from whose metric the other's is subtracted.
      other: the one that is subtracted.
      metric: `'ndcg'` or `'hit_rate'`, computed at 10.
      ranking: the ranking in which they are compared.
      targets: the held-out items on which they are compared.

    Returns:
      `difference`, the mean paired difference, and `standard_error`, its standard
      error. None if one of the two was not measured, or if there is only one rank of
      each.

    Example:
      >>> from fedpeft_jax.evaluation.ranks import Ranks
      >>> def ranks(*above):
      ...   return {"test": {"sampled": Ranks(np.array(above), np.zeros(4, int))}}
      >>> paired_difference(
      ...   {"model": ranks(0, 0, 1, 30), "random": ranks(9, 40, 40, 8)},
      ...   "model", "random", metric="hit_rate",
      ... )["difference"]
      0.25
    """
    if not {name, other} <= results.keys():
        return None
    values = [
        np.concatenate([results[key][t][ranking].metric(metric, 10) for t in targets])
        for key in (name, other)
    ]
    difference = values[0] - values[1]
    if len(difference) < 2:
        return None
    error = float(difference.std(ddof=1) / np.sqrt(len(difference)))
    return {"difference": float(difference.mean()), "standard_error": error}


def _metrics(ranks: AnyRanks) -> tuple[str, ...]:
    several = isinstance(ranks, JointRanks)
    return ("hit_rate", "recall", "ndcg") if several else ("hit_rate", "ndcg")


def _popularity(split: Split, counts: np.ndarray) -> np.ndarray:
    """Returns the training interactions of each client's test items, or their mean."""
    if split.all_test is None:
        return np.asarray(counts[split.test[split.evaluated]])
    held: Ragged = split.all_test
    sums = np.bincount(held.owners, counts[held.values], minlength=split.num_clients)
    return (sums / np.maximum(held.counts, 1))[split.evaluated]
