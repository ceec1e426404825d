"""Paired comparisons against SciPy, closed forms, and cases that can be counted."""

import math

import numpy as np
import pytest
from scipy import stats

from fedpeft_jax.reports.statistics import compare_seeds, compare_users, holm


def test_the_interval_of_users_is_that_of_normal_theory():
    """For a mean of many users the bootstrap agrees with the normal interval."""
    generator = np.random.default_rng(1)
    values, reference = (
        generator.normal(0.4, 0.3, 4000),
        generator.normal(0.3, 0.3, 4000),
    )
    found = compare_users([values], [reference])
    differences = values - reference
    error = differences.std(ddof=1) / math.sqrt(4000)
    assert found.mean == pytest.approx(differences.mean())
    assert found.low == pytest.approx(found.mean - 1.96 * error, abs=0.15 * error)
    assert found.high == pytest.approx(found.mean + 1.96 * error, abs=0.15 * error)
    expected = stats.ttest_rel(values, reference).pvalue
    assert found.p_value == pytest.approx(expected, rel=1e-6)
    assert found.pairs == 4000


def test_users_are_paired_and_seeds_are_averaged():
    generator = np.random.default_rng(2)
    user = generator.random(500)  # users differ far more than the rows do
    noise = generator.normal(0, 0.01, (2, 500))
    noise -= noise.mean()
    found = compare_users(
        [user + 0.01 + noise[0], user + 0.01 + noise[1]], [user, user]
    )
    assert found.low < 0.01 < found.high and found.high - found.low < 0.002
    assert found.p_value < 1e-6


def test_no_difference_is_certain():
    same = np.linspace(0, 1, 20)
    assert compare_users([same], [same]) == (0, 0, 0, 1.0, 20)
    assert compare_users([same + 0.5], [same]).p_value == 0
    with pytest.raises(ValueError, match="same users"):
        compare_users([same], [same[:5]])


def test_seeds_follow_students_table():
    """Mean 2 and deviation 1 of three pairs: t = 2 sqrt(3), two degrees of freedom."""
    found = compare_seeds([2.0, 4.0, 6.0], [1.0, 2.0, 3.0])
    assert found.mean == 2 and found.pairs == 3
    # The 97.5 % point of Student's t with two degrees of freedom is 4.303.
    assert found.high - found.mean == pytest.approx(4.303 / math.sqrt(3), rel=1e-3)
    t = 2 * math.sqrt(3)
    assert found.p_value == pytest.approx(1 - t / math.sqrt(2 + t * t), rel=1e-9)


@pytest.mark.parametrize("values", [[0.5], [0.5, 0.6]])
def test_too_few_seeds_or_none_that_varies(values):
    assert compare_seeds(values, np.array(values) - 0.1) is None


def test_holm_against_the_definition():
    """The smallest p value counts n times, the next n - 1 times, none below another."""
    p_values = np.random.default_rng(3).random(6) / 4
    expected, highest = [0.0] * 6, 0.0
    for place, one in enumerate(sorted(range(6), key=lambda i: p_values[i])):
        highest = max(highest, min(1.0, (6 - place) * p_values[one]))
        expected[one] = highest
    np.testing.assert_allclose(holm(p_values), expected)
    assert holm([]).shape == (0,)
    assert holm([0.9, 0.8]).tolist() == [1.0, 1.0]
