"""Plugins by name: `'lora(rank=4)'` becomes a factory with checked arguments.

A spec's argument may have any name. If Python, Flax or this library uses the name for
something else (`init`, `features`, `name`), the plugin's parameter has an underscore at
its end, `init_`, and the spec leaves the underscore out: `'rq(init="zeros")'`.
"""

import ast
import functools
import inspect
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any

from fedpeft_jax.core.errors import InputError

# A spec cannot set these: the library passes them, or every Flax module has them.
_RESERVED = frozenset(
    {"num_items", "features", "alone", "item_embedding", "parent", "name"}
)


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
      InputError: if the spec has another form than `name` or `name(key=literal, ...)`.

    Example:
      >>> parse("fedncf(hidden=(64, 32), dropout=0.5)")
      ('fedncf', {'hidden': (64, 32), 'dropout': 0.5})
      >>> parse("mean")
      ('mean', {})
    """
    form = f"cannot read {text!r}: write name or name(argument=value, ...)"
    try:
        node = ast.parse(text.strip(), mode="eval").body
        call = ast.Call(node, [], []) if isinstance(node, ast.Name) else node
        if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name):
            raise ValueError
        if call.args or any(k.arg is None for k in call.keywords):
            raise ValueError
        kwargs = {str(k.arg): ast.literal_eval(k.value) for k in call.keywords}
        if len(kwargs) < len(call.keywords):  # an argument twice
            raise ValueError
    except (SyntaxError, ValueError, TypeError):
        raise InputError(form) from None
    return call.func.id, kwargs


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
    union = typing.get_origin(annotation) in (typing.Union, types.UnionType)
    options = typing.get_args(annotation) if union else (annotation,)
    if not all(option in (bool, int, float, str, types.NoneType) for option in options):
        return True
    if float in options:
        options = (*options, int)
    return type(value) in options


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
        raise InputError(f"unknown {kind} {name!r}: use one of {known}")
    factory = registry[name]
    allowed = arguments(factory)
    usage = f"use {signature(name, factory)}"
    for argument, value in kwargs.items():
        if argument not in allowed:
            raise InputError(f"{kind} {name!r} has no argument {argument!r}: {usage}")
        if not _is_a(value, allowed[argument].annotation):
            raise InputError(
                f"{kind} {name!r} cannot take {argument}={value!r}: {usage}"
            )
    for argument, parameter in allowed.items():
        if parameter.default is inspect.Parameter.empty and argument not in kwargs:
            raise InputError(f"{kind} {name!r} needs {argument!r}: {usage}")
    given = {allowed[argument].name: value for argument, value in kwargs.items()}
    return functools.partial(factory, **given)


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
    try:
        node = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError):
        node = None
    parts = node.elts if isinstance(node, ast.Tuple) else [node]
    texts = [ast.unparse(part) for part in parts if part is not None] or [text]
    return [resolve(part, registry, kind) for part in texts]
