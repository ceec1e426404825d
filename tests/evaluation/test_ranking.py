"""The evaluator against brute-force ranks, and what it compiles and holds."""

import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fedpeft_jax.core.errors import InputError
from fedpeft_jax.core.ragged import Ragged
from fedpeft_jax.data import Split
from fedpeft_jax.evaluation.comparisons import (
    compare_with_candidates,
    compare_with_catalogue,
    length_classes,
    read_histories,
)
from fedpeft_jax.evaluation.ranking import RANKINGS, TARGETS, Evaluator


def make_split(trains, valid, test, num_items):
    train = Ragged.from_rows([np.sort(train) for train in trains])
    held_out = np.array([valid, test], np.int32)
    return Split("hand-made", num_items, train, *held_out)


def random_problem(num_clients=60, num_items=40, num_candidates=7, seed=0):
    """Skewed histories, every seventh client trains only, candidates are padded."""
    rng = np.random.default_rng(seed)
    trains, valid, test, candidates = [], [], [], []
    for client in range(num_clients):
        count = 25 if client % 20 == 3 else int(rng.integers(1, 8))
        items = rng.permutation(num_items)
        trains.append(items[:count])
        evaluated = client % 7 != 0
        valid.append(items[count] if evaluated else -1)
        test.append(items[count + 1] if evaluated else -1)
        if evaluated:
            row = items[count + 2 :][:num_candidates].copy()
            row[int(rng.integers(2, num_candidates + 1)) :] = -1
            candidates.append(row)
    split = make_split(trains, valid, test, num_items)
    return split, np.array(candidates, np.int32)


def score(params, client_ids, history, ids):
    """Small integers, so that many tie, which depend on client, history and item."""
    taste = params["clients"][client_ids]
    seen = jnp.where(history.mask, params["weights"][history.ids], 0.0).sum(axis=1)
    items = params["items"][None, :] if ids is None else params["items"][ids]
    return (taste[:, None] * items + seen[:, None] * items * items) % 5


def make_params(split, seed=0):
    rng = np.random.default_rng(seed)

    sizes = {"clients": split.num_clients}
    sizes |= {"weights": split.num_items, "items": split.num_items}
    return {
        name: jnp.asarray(rng.integers(0, 5, size), jnp.float32)
        for name, size in sizes.items()
    }


def brute_force(split, candidates, params, target, ranking):
    """The definition, one client and one item at a time."""
    params = {name: np.asarray(value, int) for name, value in params.items()}
    above, ties = [], []
    for row, client in enumerate(split.evaluated):
        train = set(split.train.row(client))
        own = (split.valid if target == "valid" else split.test)[client]
        if ranking == "sampled":
            rivals = [item for item in candidates[row] if item >= 0]
        else:
            out = train | {own} | ({split.valid[client]} if target == "test" else set())
            rivals = [item for item in range(split.num_items) if item not in out]
        seen = sum(params["weights"][item] for item in train)

        def value(item, client=client, seen=seen):
            x = params["items"][item]
            return (params["clients"][client] * x + seen * x * x) % 5

        above.append(sum(value(item) > value(own) for item in rivals))
        ties.append(sum(value(item) == value(own) for item in rivals))
    return np.array(above), np.array(ties)


@pytest.mark.parametrize("block_limit", [1, 300, 2**20])
@pytest.mark.parametrize("ranking", RANKINGS)
def test_ranks_are_the_brute_force_ones(ranking, block_limit):
    split, candidates = random_problem()
    params = make_params(split)
    evaluator = Evaluator(split, candidates, block_limit)
    for target in TARGETS:
        found = evaluator.ranks(score, params, target, ranking)
        above, ties = brute_force(split, candidates, params, target, ranking)
        assert ties.max() > 1 and above.max() > 1  # or the problem proves nothing
        assert found.above.dtype == found.ties.dtype == np.int64
        np.testing.assert_array_equal(found, [above, ties])


def by_item(params, client_ids, history, ids):
    shape = client_ids.size, params.size
    return jnp.broadcast_to(params, shape) if ids is None else params[ids]


def test_the_catalogue_ranking_by_hand():
    # Client 0 trains only. Client 1: train 0 and 1, validation 2, test 3.
    split = make_split([[4, 5], [0, 1]], [-1, 2], [-1, 3], num_items=6)
    evaluator = Evaluator(split, np.array([[4, 5]]))
    # Training items 0 (higher) and 1 (level) do not count in either.
    scores = jnp.array([9.0, 5.0, 5.0, 5.0, 7.0, 5.0])
    assert evaluator.ranks(by_item, scores, "test", "catalogue") == ([1], [1])
    # The test item 3 stays among the validation item's rivals.
    assert evaluator.ranks(by_item, scores, "valid", "catalogue") == ([1], [2])
    assert evaluator.ranks(by_item, scores, "test", "sampled") == ([1], [1])
    summary = evaluator(by_item, scores, "test", ks=(1, 2))
    assert list(summary) == ["sampled", "catalogue"]
    assert [summary["catalogue"][f"hit_rate@{k}"] for k in (1, 2)] == [0.0, 0.5]


def test_padding_and_the_target_are_no_candidates():
    split = make_split([[0]], [1], [2], num_items=6)
    evaluator = Evaluator(split, np.array([[3, 2, -1, -1]]))
    assert evaluator.ranks(by_item, jnp.zeros(6), "test", "sampled") == ([0], [1])


@pytest.mark.parametrize("ranking", RANKINGS)
def test_nan_is_never_a_good_rank(ranking):
    split = make_split([[0], [0]], [1, 1], [2, 3], num_items=7)
    evaluator = Evaluator(split, np.array([[4, 5, -1], [4, 5, -1]]))
    rivals = 2 if ranking == "sampled" else 4
    scores = jnp.arange(7.0)[::-1]  # lower ids are better
    clean = evaluator.ranks(by_item, scores, "test", ranking)
    # Item 2 is the first client's target, and in the catalogue the second's rival.
    found = evaluator.ranks(by_item, scores.at[2].set(jnp.nan), "test", ranking)
    assert (found.above[0], found.ties[0]) == (rivals, 0)
    assert (found.above[1], found.ties[1]) == (clean.above[1], 0)
    # Another item: above both, though it was below both.
    found = evaluator.ranks(by_item, scores.at[5].set(jnp.nan), "test", ranking)
    np.testing.assert_array_equal(found.above, clean.above + 1)
    # Items that are left out, NaN or not, do not count.
    found = evaluator.ranks(by_item, scores.at[:2].set(jnp.nan), "test", ranking)
    np.testing.assert_array_equal(found, clean)
    # All of them: last, and not first as in a comparison that is always false.
    found = evaluator.ranks(by_item, jnp.full(7, jnp.nan), "test", ranking)
    np.testing.assert_array_equal(found, [[rivals, rivals], [0, 0]])


def test_one_trace_a_class_for_all_params_and_targets():
    split, candidates = random_problem()
    evaluator = Evaluator(split, candidates, block_limit=300)
    widths = 1 + candidates.shape[1], split.num_items
    blocks = [list(evaluator.blocks(width)) for width in widths]
    for ranking in blocks:  # or no client is ever repeated to fill a block
        assert any(size < len(rows) for rows, size, _ in ranking)
    traced = []

    def counting(params, client_ids, history, ids):
        traced.append((history.ids.shape, None if ids is None else ids.shape))
        return score(params, client_ids, history, ids)

    evaluator(counting, make_params(split, 0), "test")
    first = len(traced)
    classes = length_classes(split.counts[split.evaluated])
    assert first == 2 * len(classes) <= 8
    assert first < sum(map(len, blocks))
    results = [evaluator(counting, make_params(split, 1), name) for name in TARGETS]
    assert len(traced) == first
    assert results[0] != results[1]


def test_classes_cover_every_client_and_pad_little():
    rng = np.random.default_rng(0)
    counts = np.clip(rng.lognormal(4.5, 1.1, 6000).astype(int), 1, 2300)
    classes = length_classes(counts)
    assert len(classes) <= 4
    np.testing.assert_array_equal(np.sort(np.concatenate(classes)), np.arange(6000))
    padded = sum(len(rows) * counts[rows].max() for rows in classes)
    assert padded < 3 * counts.sum() < 6000 * counts.max() / 3
    assert len(length_classes(np.full(9, 4))) == 1
    assert len(length_classes(np.array([2]))) == 1


def sizes_in(jaxpr):
    """Sizes of all arrays of two axes and more, in the jaxprs inside it too."""
    shapes = re.findall(r":[a-z]+\d*\[(\d+(?:,\d+)+)\]", str(jaxpr))
    return [math.prod(map(int, shape.split(","))) for shape in shapes]


@pytest.mark.parametrize("ranking", RANKINGS)
def test_no_array_of_clients_times_items(ranking):
    num_clients, num_items, limit = 20_000, 300, 2**15
    # One history is a hundred items long: nothing may be padded to it for everyone.
    trains = [np.arange(100)] + [[client % 100] for client in range(num_clients - 1)]
    split = make_split(trains, [100] * num_clients, [101] * num_clients, num_items)
    candidates = np.tile(np.arange(102, 112, dtype=np.int32), (num_clients, 1))
    evaluator, seen = Evaluator(split, candidates, limit), []
    width = num_items if ranking == "catalogue" else 1 + candidates.shape[1]
    device, scores = split.train.to_device(), jnp.zeros(num_items)
    shapes = {(len(rows), length) for rows, _, length in evaluator.blocks(width)}
    for size, length in shapes:
        clients = jnp.zeros(size, jnp.int32)
        read = jax.make_jaxpr(read_histories, static_argnums=2)
        seen += sizes_in(read(device, clients, length))
        history = read_histories(device, clients, length)
        if ranking == "catalogue":
            found = by_item(scores, clients, history, None)
            compare = jax.make_jaxpr(compare_with_catalogue)
            seen += sizes_in(compare(found, clients, clients, history))
        else:
            ids = jnp.zeros((size, width), jnp.int32)
            found = by_item(scores, clients, history, ids)
            seen += sizes_in(jax.make_jaxpr(compare_with_candidates)(found, ids))
    assert limit / 4 < max(seen) <= 2 * limit < num_clients * 10


def test_a_long_history_makes_blocks_smaller():
    split = make_split([np.arange(90)] * 2, [90] * 2, [91] * 2, 100)
    evaluator = Evaluator(split, np.array([[92], [93]]), block_limit=150)
    assert [len(rows) for rows, _, _ in evaluator.blocks(2)] == [1, 1]


def test_clients_without_training_items():
    split = make_split([[]], [0], [1], num_items=4)
    evaluator = Evaluator(split, np.array([[2]]))
    assert evaluator.ranks(by_item, jnp.zeros(4), "test", "catalogue") == ([0], [2])
    assert evaluator.ranks(by_item, jnp.zeros(4), "valid", "catalogue") == ([0], [3])


@pytest.mark.parametrize(
    ("train", "valid", "test", "candidates", "message"),
    [
        ([0], -1, -1, [[3]], "no client has a test item"),
        ([0], 1, 2, [[3], [3]], "candidates must have 1 rows"),
        ([0], 1, 2, [[4]], "num_items - 1 = 3"),
        ([0], -2, 2, [[3]], "num_items - 1 = 3"),
        ([0, 0], 1, 2, [[3]], "training items must ascend"),
        ([2], 1, 2, [[3]], "split the data again"),
        ([0], 2, 2, [[3]], "split the data again"),
    ],
)
def test_bad_data(train, valid, test, candidates, message):
    with pytest.raises(InputError, match=message):
        Evaluator(make_split([train], [valid], [test], 4), np.array(candidates))


def test_bad_arguments():
    evaluator = Evaluator(make_split([[0]], [1], [2], 4), np.array([[3]]))
    with pytest.raises(InputError, match="target must be one of valid, test"):
        evaluator.ranks(by_item, jnp.zeros(4), "train", "catalogue")
    with pytest.raises(InputError, match="ranking must be one of sampled, catalogue"):
        evaluator.ranks(by_item, jnp.zeros(4), "test", "all")
    with pytest.raises(ValueError, match=r"shape \(1, 3\), not \(1, 4\)"):
        evaluator.ranks(by_item, jnp.zeros(3), "test", "catalogue")
