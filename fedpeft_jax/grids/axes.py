"""Reads the axes of a grid: sweeps, paired lists, rows, and a file of cells.

An axis is a list of changes, `{address: value}`. A grid is the product of its axes.
"""

import csv
import io
import json
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

from fedpeft_jax.core.errors import InputError, brief
from fedpeft_jax.grids.addresses import (
    Settings,
    check_address,
    parse_range,
    parse_value,
)
from fedpeft_jax.grids.words import split_row, split_values

Axis = list[Settings]
"""The alternatives of an axis."""


def read_sweep(text: str, flag: str = "sweep") -> Axis:
    """Returns one alternative for each value of an address.

    Args:
      text: `address=one|another`, or `address=first:end` for integers.
      flag: the name of the flag, for messages.

    Raises:
      InputError: for a text of another form, or a value that occurs twice.

    Example:
      >>> read_sweep("embedding=lora(rank=2)|lora(rank=4)")
      [{'embedding': 'lora(rank=2)'}, {'embedding': 'lora(rank=4)'}]
      >>> read_sweep("seed=0:3")
      [{'seed': 0}, {'seed': 1}, {'seed': 2}]
    """
    address, separator, listed = text.partition("=")
    address = address.strip()
    if not separator or not listed.strip():
        raise InputError(f"--{flag}={text!r}: write setting=one|another")
    try:
        check_address(address)
        values: list[Any] | None = parse_range(address, listed)
        if values is None:
            values = [parse_value(address, value) for value in split_values(listed)]
    except InputError as error:
        raise InputError(f"--{flag}={text!r}: {error}") from None
    for index, value in enumerate(values):
        if value in values[:index]:
            raise InputError(f"--{flag}={text!r} has {brief(value)} twice")
    return [{address: value} for value in values]


def read_zip(texts: Sequence[str]) -> Axis:
    """Returns the alternatives of paired lists: the first of all, the second of all...

    Args:
      texts: lists as in `read_sweep`, all of one length.

    Raises:
      InputError: for lists of several lengths, or an address that occurs twice.

    Example:
      >>> read_zip(["rounds=10|20", "eval_every=5|10"])
      [{'rounds': 10, 'eval_every': 5}, {'rounds': 20, 'eval_every': 10}]
    """
    lists = [_read_paired(text) for text in texts]
    if len({len(one) for one in lists}) > 1:
        sizes = ", ".join(f"{next(iter(one[0]))} {len(one)}" for one in lists)
        raise InputError(f"--zip pairs lists of one length, and these have {sizes}")
    addresses = [next(iter(one[0])) for one in lists]
    _check_once(addresses, "--zip")
    return [
        {address: value for change in changes for address, value in change.items()}
        for changes in zip(*lists, strict=True)
    ]


def _read_paired(text: str) -> Axis:
    """Returns the values of a list, in which a value may occur more than once."""
    address, separator, listed = text.partition("=")
    if not separator or "|" not in listed:
        return read_sweep(text, "zip")
    try:
        values = [parse_value(address, value) for value in split_values(listed)]
    except InputError as error:
        raise InputError(f"--zip={text!r}: {error}") from None
    return [{address: value} for value in values]


def read_row(text: str) -> Settings:
    """Returns the changes of a row.

    Args:
      text: `setting=value`, separated by spaces.

    Raises:
      InputError: for a word that is not a setting with its value.

    Example:
      >>> read_row("full=none embedding=rq(quantizer='kmeans')")
      {'full': 'none', 'embedding': "rq(quantizer='kmeans')"}
    """
    changes: Settings = {}
    try:
        for word in split_row(text):
            address, separator, value = word.partition("=")
            if not separator:
                raise InputError(f"{word!r} is not setting=value")
            _check_once([*changes, address], "the row")
            changes[address] = parse_value(address, value)
    except InputError as error:
        raise InputError(f"--vary={text!r}: {error}") from None
    return changes


def read_cells(path: pathlib.Path) -> Axis:
    """Returns the rows of a file of explicit cells.

    Args:
      path: a file with a JSON object on each line, or a CSV file (`.csv`) whose header
        has the addresses. An empty field, or null, leaves the setting out.

    Raises:
      InputError: for a file that cannot be read, with the number of the line.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is no text in UTF-8"
        raise InputError(f"--cells={path} cannot be read: {reason}") from None
    rows: Axis = []
    numbered: list[tuple[int, Settings]] = []
    if path.suffix.lower() == ".csv":
        reader = csv.reader(io.StringIO(text))
        lines = _lines(reader, path)
        header = [name.strip() for name in next(lines, [])]
        _check_once(header, f"--cells={path}")
        for fields in lines:
            if len(fields) not in (0, len(header)):
                raise InputError(
                    f"--cells={path}, line {reader.line_num}: it has {len(fields)} "
                    f"fields and the header {len(header)}"
                )
            row = {name: x for name, x in zip(header, fields, strict=False) if x}
            numbered.append((reader.line_num, row))
    else:
        for number, line in enumerate(text.splitlines(), 1):
            try:
                found = (
                    json.loads(line, object_pairs_hook=_pairs) if line.strip() else {}
                )
            except InputError as error:
                raise InputError(f"--cells={path}, line {number}: {error}") from None
            except (ValueError, RecursionError):
                found = None
            if not isinstance(found, dict):
                raise InputError(
                    f'--cells={path}, line {number}: write {{"setting": value, ...}}'
                )
            row = {name: x for name, x in found.items() if x is not None}
            numbered.append((number, row))
    for number, row in numbered:
        try:
            changes = {
                address: parse_value(address, x) if isinstance(x, str) else _whole(x)
                for address, x in row.items()
            }
            for address in changes:
                check_address(address)
        except InputError as error:
            raise InputError(f"--cells={path}, line {number}: {error}") from None
        if changes:
            rows.append(changes)
    if not rows:
        raise InputError(f"--cells={path} has no cell: write one on each line")
    return rows


def _lines(reader: Any, path: pathlib.Path) -> Iterator[list[str]]:
    """Yields the rows of a CSV file."""
    try:
        yield from reader
    except csv.Error as error:
        raise InputError(
            f"--cells={path}, line {reader.line_num}: it is no CSV ({error})"
        ) from None


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Returns a JSON object, whose names must differ."""
    _check_once([name for name, _ in pairs], "the row")
    return dict(pairs)


def _whole(value: Any) -> Any:
    """Returns a JSON value as a spec writes it, with tuples in place of lists."""
    return tuple(map(_whole, value)) if isinstance(value, list) else value


def _check_once(addresses: Sequence[str], where: str) -> None:
    for index, address in enumerate(addresses):
        if address in addresses[:index]:
            raise InputError(f"{where} has `{address}` twice: name it once")
