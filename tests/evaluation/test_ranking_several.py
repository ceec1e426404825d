"""The evaluator with several held-out items per client, against brute force."""

import jax.numpy as jnp
import numpy as np
import pytest

from fedpeft_jax.core.errors import InputError
from fedpeft_jax.core.ragged import Ragged
from fedpeft_jax.data import Split
from fedpeft_jax.evaluation import BASELINES, Evaluator, JointRanks, Known, Ranks
from fedpeft_jax.evaluation.baselines import random_baseline
from fedpeft_jax.evaluation.centralized import bpr_mf
from fedpeft_jax.evaluation.ranking import RANKINGS, TARGETS
from fedpeft_jax.federated import published_negatives
from tests.evaluation.test_ranking import by_item, make_params, score


def first(rows):
    return np.array([row[0] if len(row) else -1 for row in rows], np.int32)


def make_split(trains, valid, test, num_items):
    rows = [Ragged.from_rows(part) for part in (valid, test)]
    several = [part if (part.counts > 1).any() else None for part in rows]
    train = Ragged.from_rows([np.sort(items) for items in trains])
    return Split("toy", num_items, train, first(valid), first(test), *several)


def random_problem(num_clients=50, num_items=40, seed=0):
    """Some clients train only, some have no validation item, candidates are padded."""
    rng = np.random.default_rng(seed)
    trains, valid, test, candidates = [], [], [], []
    for client in range(num_clients):
        items = rng.permutation(num_items)
        sizes = [int(rng.integers(1, 9)), int(rng.integers(0, 4)), 0]
        sizes[2] = 0 if client % 7 == 0 else 12 if client == 8 else rng.integers(1, 5)
        sizes[1] *= bool(sizes[2])
        train, own_valid, own_test, rest = np.split(items, np.cumsum(sizes))
        trains.append(train)
        valid.append(own_valid)
        test.append(own_test)
        if sizes[2]:
            row = rest[:7].copy()
            row[int(rng.integers(2, 8)) :] = -1
            candidates.append(row)
    split = make_split(trains, valid, test, num_items)
    return split, np.array(candidates, np.int32)


def brute_force(split, candidates, params, target, ranking):
    """The definition, one client and one item at a time."""
    params = {name: np.asarray(value, int) for name, value in params.items()}
    above, ties, counts = [], [], []
    for row, client in enumerate(split.evaluated):
        train = set(split.train.row(client).tolist())
        held = split.held_out(target).row(client).tolist()
        if ranking == "sampled":
            listed = held + [item for item in candidates[row] if item >= 0]
        else:
            out = set(train)
            if target == "test":
                out |= set(split.held_out("valid").row(client).tolist())
            listed = [item for item in range(split.num_items) if item not in out]
        seen = sum(params["weights"][item] for item in train)

        def value(item, client=client, seen=seen):
            x = params["items"][item]
            return (params["clients"][client] * x + seen * x * x) % 5

        for own in held:
            others = [value(item) for item in listed if item != own]
            above.append(sum(other > value(own) for other in others))
            ties.append(sum(other == value(own) for other in others))
        counts += [len(held)] if held else []
    return above, ties, counts


@pytest.mark.parametrize("block_limit", [1, 300])
@pytest.mark.parametrize("ranking", RANKINGS)
def test_ranks_are_the_brute_force_ones(ranking, block_limit):
    split, candidates = random_problem()
    params = make_params(split)
    evaluator = Evaluator(split, candidates, block_limit)
    for target in TARGETS:
        found = evaluator.ranks(score, params, target, ranking)
        above, ties, counts = brute_force(split, candidates, params, target, ranking)
        assert max(ties) > 1 and max(above) > 1 and max(counts) > 2
        assert isinstance(found, JointRanks)
        assert len(evaluator.clients(target)) == len(counts)
        for part, expected in zip(found, (above, ties, counts), strict=True):
            assert part.dtype == np.int64
            np.testing.assert_array_equal(part, expected)


@pytest.mark.parametrize("ranking", RANKINGS)
def test_one_item_each_has_the_ranks_of_one(ranking):
    """The loop over several targets counts what the comparison of one counts."""
    split, candidates = random_problem()
    params = make_params(split)
    one = Split("toy", 40, split.train, np.full(50, -1, np.int32), split.test)
    tests = one.held_out("test")
    joint = Split("toy", 40, split.train, one.valid, one.test, all_test=tests)
    found = [Evaluator(s, candidates).ranks(score, params, "test", ranking)
             for s in (one, joint)]  # fmt: skip
    assert all(isinstance(ranks, Ranks) for ranks in found)
    np.testing.assert_array_equal(*found)


def test_by_hand():
    # Client 0: train 0 and 1, validation 2, tests 3 and 4; client 1 has one test item.
    split = make_split([[0, 1], [0]], [[2], []], [[3, 4], [5]], num_items=7)
    # Item 4 of the first client is a candidate, too: it is left out of these.
    evaluator = Evaluator(split, np.array([[6, 4], [1, -1]]))
    scores = jnp.array([9.0, 9.0, 9.0, 5.0, 7.0, 5.0, 5.0])
    sampled = evaluator.ranks(by_item, scores, "test", "sampled")
    assert [part.tolist() for part in sampled] == [[1, 0, 1], [1, 0, 0], [2, 1]]
    every = evaluator.ranks(by_item, scores, "test", "catalogue")
    assert [part.tolist() for part in every] == [[1, 0, 3], [2, 0, 2], [2, 1]]
    metrics = evaluator(by_item, scores, "test", ("catalogue",), ks=(2,))["catalogue"]
    assert metrics["recall@2"] == pytest.approx((1 + 1 / 3) / 2 / 2)
    assert metrics["hit_rate@2"] == pytest.approx(1 / 2)
    # The validation items are one each: their ranks are, too.
    assert evaluator.ranks(by_item, scores, "valid", "sampled") == ([0], [0])


@pytest.mark.parametrize("ranking", RANKINGS)
def test_nan_is_never_a_good_rank(ranking):
    split = make_split([[0]], [[]], [[2, 3]], num_items=7)
    evaluator = Evaluator(split, np.array([[4, 5, -1]]))
    rivals = 2 if ranking == "sampled" else 4
    scores = jnp.arange(7.0)[::-1]
    found = evaluator.ranks(by_item, scores.at[2].set(jnp.nan), "test", ranking)
    assert found.above[0] == rivals + 1 and found.ties.tolist() == [0, 0]
    found = evaluator.ranks(by_item, jnp.full(7, jnp.nan), "test", ranking)
    assert found.above.tolist() == [rivals + 1] * 2 and found.ties.tolist() == [0, 0]


def test_one_trace_a_class_and_progress_by_block():
    split, candidates = random_problem()
    evaluator = Evaluator(split, candidates, block_limit=300)
    traced, reported = [], []

    def counting(params, client_ids, history, ids):
        traced.append((history.ids.shape, None if ids is None else ids.shape))
        return score(params, client_ids, history, ids)

    evaluator(counting, make_params(split, 0), "test")
    first = len(traced)
    assert first <= 8
    for ranking in RANKINGS:
        params = make_params(split, 1)
        report = lambda *call: reported.append(call)  # noqa: E731
        found = evaluator.ranks(counting, params, "test", ranking, report)
        plain = evaluator.ranks(counting, params, "test", ranking)
        for part, same in zip(found, plain, strict=True):
            np.testing.assert_array_equal(part, same)
        total = evaluator.num_blocks(ranking)
        assert reported == [(done, total) for done in range(1, total + 1)]
        assert total > 3
        reported.clear()
        evaluator.ranks(counting, params, "valid", ranking)
    assert len(traced) == first


def test_progress_may_end_the_evaluation():
    split, candidates = random_problem()

    def stop(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Evaluator(split, candidates).ranks(score, make_params(split), progress=stop)


@pytest.mark.parametrize("target", TARGETS)
def test_a_constant_score_is_the_closed_form(target):
    split, candidates = random_problem()
    evaluator = Evaluator(split, candidates)
    evaluated = evaluator(*BASELINES["random"](Known(split)), target)
    closed = random_baseline(split, candidates, target)
    for ranking, metrics in closed.items():
        assert "recall@10" in metrics
        assert evaluated[ranking] == pytest.approx(metrics, rel=1e-12)


def test_every_baseline_is_evaluated():
    split, candidates = random_problem()
    known = Known(split, np.random.default_rng(0).normal(size=(40, 3)), np.ones(40))
    for name in set(BASELINES) - {"bpr_mf"}:
        metrics = Evaluator(split, candidates)(*BASELINES[name](known), "test")
        for values in metrics.values():
            assert all(0 <= value <= 1 for value in values.values())


def test_bpr_mf_stops_by_all_validation_items():
    """The first validation items are learnt, the others are never positives."""
    trains = [[c % 3, (c + 1) % 3] for c in range(30)]
    trains = [sorted(items) for items in trains]
    learnt, test = [[(c + 2) % 3] for c in range(30)], [[3]] * 30
    both = [[*items, *range(4, 14)] for items in learnt]
    splits = [make_split(trains, valid, test, 14) for valid in (learnt, both)]
    last, early = (bpr_mf(split, features=4, epochs=8)["items"] for split in splits)
    assert bool((last != early).any())


def test_the_published_sampler_needs_one_item_each():
    split, _ = random_problem()
    sampler = published_negatives(40, exclude_held_out=True)
    for use in (sampler.make_store, sampler.expected):
        with pytest.raises(InputError, match="`train_negatives=unseen` reproduces"):
            use(split)
    assert published_negatives(40).expected(split).shape == (40,)


@pytest.mark.parametrize(
    ("test", "message"),
    [([1, 1], "split the data again"), ([2, 1], "split the data again"),
     ([0, 2], "split the data again"), ([2, 9], "num_items - 1 = 5")],
)  # fmt: skip
def test_bad_data(test, message):
    split = make_split([[0]], [[1, 3]], [test], 6)
    with pytest.raises(InputError, match=message):
        Evaluator(split, np.array([[4]]))
