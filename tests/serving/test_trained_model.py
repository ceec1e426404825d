"""Recommendations of trained models, against NumPy and against the evaluation."""

import functools

import numpy as np
import polars as pl
import pytest

from fedpeft_jax import InputError, load
from tests.small_runs import (
    BACKBONES,
    NUM_ITEMS,
    NUM_USERS,
    STRATEGIES,
    finish,
    finished,
    leaf,
    small_runs,
)

# A trained table, no table, and frozen tables.
MODELS = {**STRATEGIES, "lora": {"full": "none", **STRATEGIES["lora"]}}
QUICK = set(zip(BACKBONES, STRATEGIES, strict=True))
CASES = [
    pytest.param(b, s, marks=() if (b, s) in QUICK else pytest.mark.slow)
    for b in BACKBONES
    for s in STRATEGIES
]


@pytest.fixture(scope="module", autouse=True)
def _small():
    with small_runs():
        yield


@pytest.fixture(scope="module")
def model():
    return load(finished().path)


@pytest.fixture(scope="module")
def run_of(tmp_path_factory):
    """The run of a backbone and a strategy, made once."""

    @functools.cache
    def make(backbone, strategy):
        return finish(
            tmp_path_factory.mktemp("runs") / f"{backbone}-{strategy}",
            **{**MODELS[strategy], "warm_up_rounds": 0},
            backbone=backbone,
            rounds=2,
            baselines="random",
            client_optimizer="adam(learning_rate=0.1)",
        )

    return make


def histories(path):
    users = pl.read_parquet(path / "users.parquet")["user"].to_list()
    items = pl.read_parquet(path / "items.parquet")["item"].to_list()
    found = {user: ([], []) for user in users}
    for user, item, trains in pl.read_parquet(path / "histories.parquet").iter_rows():
        found[users[user]][0 if trains else 1].append(items[item])
    return found


def test_embeddings_are_the_sum_of_both_parts(model):
    variables = finished().variables
    a, b, table = (leaf(variables, name) for name in ("A", "B", "full"))
    np.testing.assert_allclose(model.item_embeddings, table + a @ b.T, atol=1e-5)
    assert model.item_embeddings.dtype == np.float32
    np.testing.assert_array_equal(model.user_embeddings, leaf(variables, "user"))


def test_scores_are_inner_products(model):
    expected = model.user_embeddings @ model.item_embeddings.T
    np.testing.assert_allclose(model.score(), expected, atol=1e-4)
    users, items = model.user_ids[[7, 2]], model.item_ids[[5, 0, 9]]
    some = model.score(users, items)
    assert some.dtype == np.float32
    np.testing.assert_allclose(some, expected[[7, 2]][:, [5, 0, 9]], atol=1e-4)
    assert model.score(int(users[0]), int(items[0])).shape == (1, 1)


@pytest.mark.parametrize("exclude", [True, "train", False])
def test_the_best_items_in_order_without_the_history(model, exclude):
    scores, k = model.score(), 7
    found = model.recommend(k=k, exclude_history=exclude)
    assert found.columns == ["user", "rank", "item", "title", "score"]
    past = histories(finished().path)
    titles = dict(zip(model.item_ids.tolist(), model.titles, strict=True))
    for row, user in enumerate(model.user_ids.tolist()):
        trained, held = past[user]
        out = {True: trained + held, "train": trained, False: []}[exclude]
        order = [
            item
            for item in model.item_ids[np.argsort(-scores[row])].tolist()
            if item not in out
        ][:k]
        mine = found.filter(pl.col("user") == user)
        assert mine["item"].to_list() == order
        assert mine["rank"].to_list() == list(range(1, len(order) + 1))
        assert mine["title"].to_list() == [titles[item] for item in order]
        np.testing.assert_allclose(
            mine["score"], np.sort(scores[row])[::-1][:k] if not out else mine["score"]
        )


def test_users_in_any_order_and_more_than_once(model):
    users = model.user_ids[[9, 3, 9]].tolist()
    found = model.recommend(users, k=2)
    assert found["user"].to_list() == [x for user in users for x in (user, user)]
    assert found[:2].equals(found[4:])
    alone = model.recommend(str(users[0]), k=2)  # scored in a block of another shape
    assert alone.drop("score").equals(found[:2].drop("score"))
    np.testing.assert_allclose(alone["score"], found[:2]["score"], rtol=1e-5)
    assert model.recommend([], k=2).is_empty()


def test_a_user_has_no_more_items_than_there_are(model):
    user = model.user_ids[0]
    past = histories(finished().path)[user]
    found = model.recommend(user, k=1000)
    assert found.height == NUM_ITEMS - len(past[0]) - len(past[1])
    assert model.recommend(user, k=1000, exclude_history=False).height == NUM_ITEMS


def test_history_is_in_time_order(model):
    for user, (trained, held) in list(histories(finished().path).items())[:5]:
        frame = model.history(user)
        assert frame["item"].to_list() == trained + held
        assert frame["part"].to_list() == ["train"] * len(trained) + ["held_out"] * 2
        assert frame["title"].null_count() == 0


def test_similar_items_have_the_largest_cosine(model):
    vectors = model.item_embeddings
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    found = model.similar_items(model.item_ids[4], k=5)
    cosines = unit @ unit[4]
    order = [row for row in np.argsort(-cosines) if row != 4][:5]
    assert found["item"].to_list() == model.item_ids[order].tolist()
    np.testing.assert_allclose(found["score"], cosines[order], atol=1e-5)
    assert model.similar_items(model.item_ids[4], k=1000).height == NUM_ITEMS - 1


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda m: m.recommend(12345), "there is no user 12345"),
        (lambda m: m.recommend(1, k=0), "k=0 must be an integer of at least 1"),
        (lambda m: m.recommend(1, k=2.5), "k=2.5 must be"),
        (lambda m: m.recommend(1, k=True), "k=True must be"),
        (lambda m: m.recommend(1, exclude_history="valid"), "True, False or 'train'"),
        (lambda m: m.score(1, ["nope"]), "there is no item 'nope'"),
        (lambda m: m.history("eve"), "there is no user 'eve'"),
        (lambda m: m.similar_items(m.titles[3][:12]), "did you mean "),
        (lambda m: m.similar_items(1, k=-1), "k=-1 must be"),
        (lambda m: m.fold_in([1, 99999]), "there is no item 99999"),
        (lambda m: m.fold_in([]), "the history is empty"),
        (lambda m: m.fold_in(m.item_ids), "has 40 of 40 items"),
        (lambda m: m.fold_in([1], epochs=0), "epochs=0 must be"),
    ],
)
def test_bad_arguments_are_one_line(model, call, says):
    with pytest.raises(InputError) as caught:
        call(model)
    assert says in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(("backbone", "strategy"), CASES)
def test_every_model_ranks_as_its_evaluation_did(backbone, strategy, run_of):
    """The place of the validation item among all that the user did not train on."""
    run = run_of(backbone, strategy)
    model = load(run.path)
    assert model.item_embeddings.shape == (NUM_ITEMS, 8)
    assert np.isfinite(model.item_embeddings).all()
    ranks = model.recommend(k=NUM_ITEMS, exclude_history="train")
    users = pl.read_parquet(run.path / "per_user.parquet")
    joined = users.join(
        ranks, left_on=["user", "valid_item"], right_on=["user", "item"]
    )
    assert len(joined) == len(users) == NUM_USERS
    low = joined["model_valid_full_above"]
    place = joined["rank"] - 1 - low
    assert ((place >= 0) & (place <= joined["model_valid_full_ties"])).all()


@pytest.mark.parametrize(("backbone", "strategy"), CASES)
def test_every_model_folds_a_newcomer_in(backbone, strategy, run_of):
    model = load(run_of(backbone, strategy).path)
    before = model.item_embeddings.copy(), model.score()
    history = model.history(model.user_ids[0])["item"].to_list()
    found = model.fold_in(history, k=5)
    assert found.recommendations.columns == ["rank", "item", "title", "score"]
    assert found.recommendations["rank"].to_list() == [1, 2, 3, 4, 5]
    assert not set(found.recommendations["item"]) & set(history)
    assert found.losses[-10:].mean() < found.losses[:3].mean()
    assert found.recommendations.equals(model.fold_in(history, k=5).recommendations)
    np.testing.assert_array_equal(before[0], model.item_embeddings)
    np.testing.assert_array_equal(before[1], model.score())
    if backbone == "pfedrec":
        assert found.vector is None
        with pytest.raises(InputError, match="PFedRec has no user vectors"):
            model.user_embeddings  # noqa: B018
    else:
        assert found.vector.shape == (8,)
        assert model.user_embeddings.shape == (NUM_USERS, 8)
    if backbone in ("fedmf", "fedpergnn"):
        inner = model.user_embeddings @ model.item_embeddings.T
        np.testing.assert_allclose(model.score(), inner, atol=1e-4)
