"""Plugins by name: `'lora(rank=4)'` becomes a factory with checked arguments.

A spec's argument may have any name. If Python, Flax or this library uses the name for
something else (`init`, `features`, `name`), the plugin's parameter has an underscore at
its end, `init_`, and the spec leaves the underscore out: `'rq(init="zeros")'`.
"""

import ast
import functools
import inspect
import math
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from fedpeft_jax.core.errors import InputError, brief
from fedpeft_jax.core.warning_filters import ignored_warnings

# A spec cannot set these: the library passes them, or every Flax module has them.
_RESERVED = frozenset(
    {"num_items", "features", "alone", "item_embedding", "parent", "name"}
)

MOST_CHARACTERS = 1000
"""The longest text of one or more specs."""

_MOST_STAGES = 16  # specs in one setting
_MOST_NESTED = 4  # containers in one another in an argument
_LITERALS = (int, float, str, tuple, list, dict, types.NoneType)
_MOST_NUMBER = 2**63  # beyond it, an integer fits no type of a compiled program


def arguments(factory: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """Returns the parameters of a plugin that a spec may set, by the name in the spec.

    Example:
      >>> def lora(num_items, rank=4, init_=None): ...
      >>> {name: str(p) for name, p in arguments(lora).items()}
      {'rank': 'rank=4', 'init': 'init_=None'}
    """
    parameters = inspect.signature(factory).parameters.values()
    named = [p for p in parameters if p.kind is not p.VAR_KEYWORD]
    return {p.name.removesuffix("_"): p for p in named if p.name not in _RESERVED}


def signature(name: str, factory: Callable[..., Any]) -> str:
    """Returns a plugin's spec with all arguments and defaults, e.g. `'lora(rank=4)'`.

    Example:
      >>> def lora(num_items, rank: int = 4, alpha=None): ...
      >>> signature("lora", lora)
      'lora(rank=4, alpha=None)'
    """
    inner = ", ".join(
        n if p.default is inspect.Parameter.empty else f"{n}={p.default!r}"
        for n, p in arguments(factory).items()
    )
    return f"{name}({inner})"


def parse(text: str) -> tuple[str, dict[str, Any]]:
    """Splits a spec into its name and its keyword arguments (Python literals).

    Raises:
      InputError: if the spec has another form than `name` or `name(key=literal, ...)`,
        is too long or nested too deeply, or has a number that is not finite.

    Example:
      >>> parse("fedncf(hidden=(64, 32), dropout=0.5)")
      ('fedncf', {'hidden': (64, 32), 'dropout': 0.5})
      >>> parse("mean")
      ('mean', {})
    """
    form = f"cannot read {brief(text)}: write name or name(argument=value, ...)"
    try:
        node = _parsed(text)
        call = ast.Call(node, [], []) if isinstance(node, ast.Name) else node
        if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name):
            raise ValueError
        if call.args or any(k.arg is None for k in call.keywords):
            raise ValueError
        kwargs = {str(k.arg): ast.literal_eval(k.value) for k in call.keywords}
        if len(kwargs) < len(call.keywords):  # an argument twice
            raise ValueError
        # Python reads some other characters as the letters that they resemble.
        if call.func.id != name_of(text):
            raise ValueError
    except (SyntaxError, ValueError, TypeError, RecursionError, MemoryError):
        raise InputError(form) from None
    for argument, value in kwargs.items():
        problem = _problem(value)
        if problem:
            raise InputError(f"{call.func.id}: {argument} {problem}")
    return call.func.id, kwargs


def _parsed(text: str) -> ast.expr:
    """Returns the syntax tree of an expression; every failure is a plain exception."""
    if len(text) > MOST_CHARACTERS:
        raise ValueError
    with ignored_warnings(Warning):  # Python warns of what looks like a mistake
        return ast.parse(text.strip(), mode="eval").body


def _problem(value: Any, depth: int = 0) -> str:
    """Returns why no plugin can use a literal, and '' if one may."""
    inner: Sequence[Any] = ()
    if isinstance(value, Mapping):
        inner = [*value.keys(), *value.values()]
    elif isinstance(value, tuple | list):
        inner = value
    if inner and depth >= _MOST_NESTED:
        return "is nested too deeply: write it flat"
    if isinstance(value, float) and not math.isfinite(value):
        return f"must be finite, got {value}"
    if isinstance(value, int) and abs(value) >= _MOST_NUMBER:
        return f"is too large: lower {brief(value)}"
    if not isinstance(value, _LITERALS):
        return f"must be a number, a text or a tuple, got {brief(value)}"
    problems = (_problem(element, depth + 1) for element in inner)
    return next((problem for problem in problems if problem), "")


def name_of(text: str) -> str:
    """Returns the name in a spec.

    Args:
      text: a spec, e.g. `'lora(rank=4)'`.

    Example:
      >>> name_of("lora(rank=4)")
      'lora'
    """
    return text.partition("(")[0].strip()


def _is_a(value: Any, annotation: Any) -> bool:
    """Returns whether a literal has the annotated type; checks plain types only."""
    origin, inside = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (typing.Union, types.UnionType):
        return any(_is_a(value, option) for option in inside)
    if origin is typing.Literal:
        return type(value) in {type(word) for word in inside}  # it lists its words
    if origin is Sequence:
        return isinstance(value, tuple) and all(_is_a(x, inside[0]) for x in value)
    if annotation is float:
        return type(value) in (float, int)
    if annotation in (bool, int, str, types.NoneType):
        return type(value) is annotation
    return True


def resolve(
    text: str, registry: Mapping[str, Callable[..., Any]], kind: str
) -> Callable[..., Any]:
    """Returns the registered factory of a spec with the spec's arguments bound.

    Args:
      text: a spec, e.g. `'lora(rank=4)'`.
      registry: factories by name.
      kind: what the registry holds, for messages, e.g. `'embedding'`.

    Raises:
      InputError: if the name or an argument is unknown, an argument is missing, or a
        value has another type than the factory declares.

    Example:
      >>> registry = {"double": lambda value=1: 2 * value}
      >>> resolve("double(value=4)", registry, "toy")()
      8
      >>> resolve("double(size=4)", registry, "toy")
      Traceback (most recent call last):
      ...
      fedpeft_jax.InputError: toy 'double' has no argument 'size': use double(value=1)
    """
    name, kwargs = parse(text)
    if name not in registry:
        known = ", ".join(sorted(registry))
        raise InputError(f"unknown {kind} {brief(name)}: use one of {known}")
    factory = registry[name]
    allowed = arguments(factory)
    usage = f"use {signature(name, factory)}"
    for argument, value in kwargs.items():
        if argument not in allowed:
            raise InputError(
                f"{kind} {name!r} has no argument {brief(argument)}: {usage}"
            )
        if isinstance(value, list):  # a list does not hash, as a module must
            kwargs[argument] = value = tuple(value)
        if not _is_a(value, allowed[argument].annotation):
            raise InputError(
                f"{kind} {name!r} cannot take {argument}={brief(value)}: {usage}"
            )
    for argument, parameter in allowed.items():
        if parameter.default is inspect.Parameter.empty and argument not in kwargs:
            raise InputError(f"{kind} {name!r} needs {argument!r}: {usage}")
    given = {allowed[argument].name: value for argument, value in kwargs.items()}
    return functools.partial(factory, **given)


def split_chain(text: str) -> list[str]:
    """Returns the specs of a text, which commas separate, in their order.

    Args:
      text: one or more specs; what cannot be read is returned as one.

    Example:
      >>> split_chain("clip_by_norm(max_norm=1.0), bfloat16")
      ['clip_by_norm(max_norm=1.0)', 'bfloat16']
    """
    try:
        node = _parsed(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return [text]
    parts = node.elts if isinstance(node, ast.Tuple) else []
    return [ast.unparse(part) for part in parts] or [text]


def resolve_chain(
    text: str, registry: Mapping[str, Callable[..., Any]], kind: str
) -> list[Callable[..., Any]]:
    """Returns the factories of several specs, separated by commas, in their order.

    Args:
      text: one or more specs, e.g. `'clip_by_norm(max_norm=1.0), bfloat16'`.
      registry: factories by name.
      kind: what the registry holds, for messages.

    Raises:
      InputError: as in `resolve`, for any of the specs.

    Example:
      >>> registry = {"double": lambda value=1: 2 * value}
      >>> [make() for make in resolve_chain("double, double(value=4)", registry, "toy")]
      [2, 8]
    """
    texts = split_chain(text)
    if len(texts) > _MOST_STAGES:
        raise InputError(f"{kind} has {len(texts)} specs: use at most {_MOST_STAGES}")
    return [resolve(part, registry, kind) for part in texts]
