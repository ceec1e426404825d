"""Specs: the forms they may have, and messages that name the remedy."""

from collections.abc import Sequence
from typing import Literal

import pytest

from fedpeft_jax.core.errors import InputError
from fedpeft_jax.core.specs import arguments, parse, resolve, resolve_chain, signature
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


# A trailing underscore


def underscored(num_items, features, features_: int = 8, name_=None, init_: str = "a"):
    return num_items, features, features_, name_, init_


def test_a_spec_leaves_the_trailing_underscore_out():
    registry = {"toy": underscored}
    text = "toy(features=2, name='own', init='b')"
    made = resolve(text, registry, "toy")(num_items=7, features=3)
    assert made == (7, 3, 2, "own", "b")
    default = resolve("toy", registry, "toy")(num_items=7, features=3)
    assert default == (7, 3, 8, None, "a")


def test_arguments_and_signature_have_the_names_of_the_spec():
    assert list(arguments(underscored)) == ["features", "name", "init"]
    expected = "toy(features=8, name=None, init='a')"
    assert signature("toy", underscored) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("toy(init_='b')", "toy 'toy' has no argument 'init_': use toy(features=8"),
        ("toy(features_=2)", "toy 'toy' has no argument 'features_'"),
        ("toy(init=2)", "toy 'toy' cannot take init=2: use toy(features=8"),
    ],
)
def test_messages_have_the_names_of_the_spec(text, message):
    with pytest.raises(InputError) as error:
        resolve(text, {"toy": underscored}, "toy")
    assert message in str(error.value)


def test_a_missing_argument_is_named_without_its_underscore():
    with pytest.raises(InputError, match=r"toy 'toy' needs 'init': use toy\(init\)"):
        resolve("toy", {"toy": lambda init_: init_}, "toy")


# Chains

CHAIN = {"a": lambda x=1: ("a", x), "b": lambda y=2: ("b", y)}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a", [("a", 1)]),
        (" a ", [("a", 1)]),
        ("a, b", [("a", 1), ("b", 2)]),
        ("b(y=5),a,b", [("b", 5), ("a", 1), ("b", 2)]),
        ("a(x=(1, 2)), b", [("a", (1, 2)), ("b", 2)]),
        ("a(x='p, q'), b(y={'k': [1, 2]})", [("a", "p, q"), ("b", {"k": [1, 2]})]),
    ],
)
def test_a_chain_is_resolved_in_its_order(text, expected):
    assert [make() for make in resolve_chain(text, CHAIN, "stage")] == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a, c", "unknown stage 'c': use one of a, b"),
        ("a(x=1), b(x=1)", "stage 'b' has no argument 'x': use b(y=2)"),
        ("a, 4", "cannot read '4': write name or name(argument=value, ...)"),
        ("a(, b", "cannot read 'a(, b': write name"),
        ("a b", "cannot read 'a b': write name"),
        ("", "cannot read '': write name"),
        ("()", "cannot read '()': write name"),
    ],
)
def test_a_bad_chain_is_refused(text, message):
    with pytest.raises(InputError) as error:
        resolve_chain(text, CHAIN, "stage")
    assert message in str(error.value)
    assert "\n" not in str(error.value)


# Hostile specs


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("-" * 20000 + "1", "write name or name(argument=value, ...)"),
        ("a(x=" + "-" * 900 + "1)", "write name or name"),
        ("a(x=1e999)", "a: x must be finite, got inf"),
        ("a(x=(1, -1e999))", "a: x must be finite, got -inf"),
        ("a(x=" + "9" * 20 + ")", "a: x is too large: lower 99999"),
        ("a(x=((((((1,),),),),),))", "a: x is nested too deeply: write it flat"),
        ("a(x=1j)", "a: x must be a number, a text or a tuple, got 1j"),
        ("a(x=1, x=2)", "write name or name"),
        ("\uff41", "write name or name"),
        (", ".join("a" * 17), "stage has 17 specs: use at most 16"),
    ],
)
def test_what_no_plugin_can_use_is_one_line(text, message):
    with pytest.raises(InputError) as error:
        resolve_chain(text, CHAIN, "stage")
    assert message in str(error.value)
    assert "\n" not in str(error.value) and len(str(error.value)) < 300


def sized(num_items, sizes: Sequence[int] = (1,), word: Literal["a", "b"] = "a"):
    return sizes, word


def test_sequences_have_elements_of_their_type():
    registry = {"p": sized}
    assert resolve("p(sizes=[3, 4])", registry, "toy")(num_items=1)[0] == (3, 4)
    for text in ("p(sizes=3)", "p(sizes=(1.5,))", "p(sizes=(True,))", "p(word=1)"):
        with pytest.raises(InputError, match="toy 'p' cannot take"):
            resolve(text, registry, "toy")
