"""Tests of centralized.py: it learns what is planted, and is the same every time."""

import numpy as np

from fedpeft_jax.data import leave_one_out, load_synthetic, sample_candidates
from fedpeft_jax.evaluation.baselines import Known, centralized_bpr_mf, most_popular
from fedpeft_jax.evaluation.centralized import bpr_mf
from fedpeft_jax.evaluation.ranking import Evaluator


def test_it_beats_popularity_where_there_is_taste():
    data = load_synthetic(num_users=400, num_items=150)
    split = leave_one_out(data)
    evaluator = Evaluator(split, sample_candidates(data, split, 100))
    known = Known(split, features=16)
    popular = evaluator(*most_popular(known), "test", ("sampled",))
    found = evaluator(*centralized_bpr_mf(known), "test", ("sampled",))
    assert found["sampled"]["ndcg@10"] > 1.3 * popular["sampled"]["ndcg@10"]


def test_the_seed_fixes_it_and_held_out_items_do_not_train():
    split = leave_one_out(load_synthetic(num_users=50, num_items=30))
    one, two = (bpr_mf(split, features=4, epochs=2) for _ in range(2))
    np.testing.assert_array_equal(one["items"], two["items"])
    assert np.any(bpr_mf(split, features=4, epochs=2, seed=1)["items"] != one["items"])
