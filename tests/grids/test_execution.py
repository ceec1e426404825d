"""How cells end: what is said of an error, and what is kept of it."""

import pytest

from fedpeft_jax.core.errors import DivergedError, InputError
from fedpeft_jax.grids.execution import Outcome, outcome_of


def raised(error):
    with pytest.raises(type(error)) as caught:
        raise error
    return caught.value


@pytest.mark.parametrize("folder", ["held", "new/cell"])
def test_a_mistake_in_the_program_leaves_its_traceback(tmp_path, folder):
    """Also in a run that failed before it had a folder."""
    (tmp_path / "held").mkdir()
    path = tmp_path / folder
    outcome = outcome_of(raised(KeyError("x")), path)
    assert outcome == Outcome("failed", f"KeyError: 'x'; see {path.name}/error.txt")
    assert "in raised" in (path / "error.txt").read_text()


def test_a_traceback_that_cannot_be_written_is_not_named(tmp_path):
    (tmp_path / "file").write_text("")
    outcome = outcome_of(raised(KeyError("x")), tmp_path / "file" / "cell")
    assert outcome == Outcome("failed", "KeyError: 'x'")


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (DivergedError("the loss\nis NaN"), Outcome("diverged", "the loss is NaN")),
        (InputError("no such file"), Outcome("failed", "no such file")),
        (MemoryError(), Outcome("failed", "memory ran out")),
    ],
)
def test_errors_that_users_know_are_one_line_without_a_file(tmp_path, error, expected):
    assert outcome_of(error, tmp_path / "cell") == expected
    assert not (tmp_path / "cell").exists()
