"""Specs: what they may say, and messages that name the remedy."""

import pytest

from fedpeft_jax.core.errors import InputError
from fedpeft_jax.core.specs import parse, resolve, signature
from fedpeft_jax.embeddings import EMBEDDINGS


def plugin(num_items, size, rate=0.5, names=("a",)):
    return num_items, size, rate, names


REGISTRY = {"toy": plugin, "other": lambda: 1}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("mean", ("mean", {})),
        ("mean()", ("mean", {})),
        (" lora ( rank = 4 ) ", ("lora", {"rank": 4})),
        (
            "x(a=-1, b=(1, 2), c='d', e=None, f=1e-3)",
            ("x", {"a": -1, "b": (1, 2), "c": "d", "e": None, "f": 1e-3}),
        ),
    ],
)
def test_parse(text, expected):
    assert parse(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "lora(4)",
        "lora(rank=4",
        "lora(rank=size)",
        "lora(rank=2+2*3)",
        "lora(**{'rank': 4})",
        "lora(*[4])",
        "a.b(rank=4)",
        "lora(rank=4)(rank=5)",
        "lora; mean",
        "__import__('os').getcwd()",
        "4",
        "lora(rank={[]: 1})",
    ],
)
def test_malformed_specs_are_refused_in_one_line(text):
    with pytest.raises(InputError, match="write name or name") as error:
        parse(text)
    assert repr(text) in str(error.value)
    assert "\n" not in str(error.value)


def test_a_repeated_argument_is_refused():
    with pytest.raises(InputError):
        parse("lora(rank=4, rank=5)")


def test_resolve_binds_the_arguments():
    assert resolve("toy(size=3, rate=1)", REGISTRY, "toy")(num_items=7) == (
        7,
        3,
        1,
        ("a",),
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("tory", "unknown embedding 'tory': use one of other, toy"),
        ("toy", "embedding 'toy' needs 'size': use toy(size, rate=0.5"),
        ("toy(size=1, rat=2)", "no argument 'rat': use toy(size, rate=0.5"),
        # What the library passes itself is not a user's to set.
        ("toy(size=1, num_items=2)", "no argument 'num_items'"),
    ],
)
def test_errors_name_the_input_and_the_remedy(text, message):
    with pytest.raises(InputError) as error:
        resolve(text, REGISTRY, "embedding")
    assert message in str(error.value)


@pytest.mark.parametrize("argument", ["features", "alone", "parent", "name"])
def test_no_module_lets_its_internals_be_set(argument):
    for name, factory in EMBEDDINGS.items():
        assert argument not in signature(name, factory)
        with pytest.raises(InputError):
            resolve(f"{name}({argument}=None)", EMBEDDINGS, "embedding")


def typed(
    num_items, rank: int = 1, rate: float | None = None, deep: bool = False, sizes=()
):
    return rank, rate, deep, sizes


@pytest.mark.parametrize(
    "text",
    ["p(rank=1.5)", "p(rank='1')", "p(rank=True)", "p(rank=None)", "p(rate='fast')",
     "p(rate=(1,))", "p(deep=1)"],
)  # fmt: skip
def test_values_of_another_type_are_refused(text):
    with pytest.raises(InputError, match=r"plugin 'p' cannot take \w+=.*: use p\("):
        resolve(text, {"p": typed}, "plugin")


@pytest.mark.parametrize(
    "text", ["p(rank=2)", "p(rate=1)", "p(rate=0.5)", "p(rate=None)", "p(deep=True)",
             "p(sizes='any')"],
)  # fmt: skip
def test_values_of_the_type_are_taken(text):
    resolve(text, {"p": typed}, "plugin")(num_items=3)
