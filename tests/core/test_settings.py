"""Settings check themselves against their words and bounds."""

import dataclasses
import math

import numpy as np
import pytest

from fedpeft_jax.core.errors import InputError
from fedpeft_jax.core.settings import check_fields, plain, setting


@dataclasses.dataclass(frozen=True, kw_only=True)
class Toy:
    word: str = setting("a", "a word", choices=("a", "b"))
    share: float = setting(0.5, "a share", above=0, most=1)
    count: int = setting(1, "a count", least=1, below=10)
    open: float | None = setting(None, "any number")
    path: str | None = setting(None, "a path")


@pytest.mark.parametrize(
    "given",
    [{}, {"share": 1}, {"count": 9}, {"word": "b"}, {"open": -1e9}, {"count": None}],
)
def test_what_is_allowed(given):
    check_fields(Toy(**given))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"word": "c"}, "`word='c'` is not known: use one of a, b"),
        ({"share": 0.0}, "`share=0.0` must be above 0 and at most 1"),
        ({"share": 1.1}, "`share=1.1` must be above 0 and at most 1"),
        ({"count": 0}, "`count=0` must be at least 1 and below 10"),
        ({"count": 10}, "`count=10` must be at least 1 and below 10"),
        ({"share": math.nan}, "`share=nan` must be a finite number"),
        ({"count": "3"}, "`count='3'` must be an integer"),
        ({"count": 2.0}, "`count=2.0` must be an integer"),
        ({"count": True}, "`count=True` must be an integer"),
        ({"share": "half"}, "`share='half'` must be a number"),
        ({"word": 1}, "`word=1` must be a string"),
        ({"open": math.inf}, "`open=inf` must be a finite number"),
        (
            {"share": 1e-40},
            "`share=1e-40` is rounded to zero in training: set at least 1e-30",
        ),
        ({"path": "a\0"}, "`path='a\\x00'` has a NUL character: leave it out"),
        ({"path": " "}, "`path=' '` is empty: leave it out"),
        (
            {"count": 10**5000},
            "`count=an integer of more than 4000 digits` must be at "
            "least 1 and below 10",
        ),
    ],
)
def test_what_is_refused(given, message):
    with pytest.raises(InputError) as caught:
        check_fields(Toy(**given))
    assert str(caught.value) == message


def test_a_long_text_is_cut_in_the_message():
    with pytest.raises(InputError) as caught:
        check_fields(Toy(path="x" * 5000))
    message = str(caught.value)
    assert message.endswith("...` has 5000 characters: use at most 4096")
    assert len(message) < 200


def test_scalars_of_numpy_are_plain_values():
    assert [plain(x) for x in (np.int64(3), np.float32(0.5), np.bool_(True), "a")] == [
        3, 0.5, True, "a",
    ]  # fmt: skip
    assert type(plain(np.int8(3))) is int and plain(None) is None
