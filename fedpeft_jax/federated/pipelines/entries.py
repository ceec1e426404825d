"""The description of a payload's arrays, and the header that holds it.

A header is

=======================  ===============================================
4 bytes                  `FPJX`
uint8                    version of the format, 1
uint32                   length n of the description
uint32                   CRC-32 of the description
n bytes                  JSON: a list of `[name, type, shape]`
=======================  ===============================================

where the numbers are little endian, and a `null` in a shape is the number of rows that
a client touched. A receiver computes it from the length of the message.
"""

import json
import math
import struct
import zlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fedpeft_jax.core.errors import InputError, brief

_MAGIC, _VERSION = b"FPJX", 1
_FRAME = struct.Struct("<4sBII")
_MOST = 2**31 - 1  # the longest axis
_TYPES = (
    *("float32", "float16", "bfloat16", "bool"),
    *("int8", "int16", "int32", "uint8", "uint16", "uint32"),
)


class Entry(NamedTuple):
    """One array of a payload.

    Attributes:
      name: its path in the payload, which is unique.
      dtype: name of its type.
      shape: its shape; None for the number of touched rows.
    """

    name: str
    dtype: str
    shape: tuple[int | None, ...]


def pack_header(entries: Sequence[Entry]) -> bytes:
    """Returns the header of some arrays.

    Args:
      entries: their descriptions, in the order of the message.

    Example:
      >>> header = pack_header([Entry("w", "float32", (3, 2))])
      >>> header[13:], read_entries(header)[0].shape
      (b'[["w","float32",[3,2]]]', (3, 2))
    """
    text = json.dumps(list(entries), separators=(",", ":")).encode()
    return _FRAME.pack(_MAGIC, _VERSION, len(text), zlib.crc32(text)) + text


def read_entries(header: bytes) -> tuple[Entry, ...]:
    """Returns the descriptions in a header.

    Args:
      header: the result of `pack_header`.

    Raises:
      InputError: if the header is damaged, or was written by another version.
    """
    try:
        magic, version, length, checksum = _FRAME.unpack_from(header)
    except struct.error:
        raise _damaged("it is too short") from None
    text = header[_FRAME.size :]
    if magic != _MAGIC:
        raise _damaged("it does not begin with FPJX")
    if version != _VERSION:
        raise InputError(
            f"the header has version {version}, and this program reads {_VERSION}: use "
            "the same version on both sides"
        )
    if len(text) != length or zlib.crc32(text) != checksum:
        raise _damaged("its length or its checksum is wrong")
    try:
        found = json.loads(text)
        if not isinstance(found, list):
            raise ValueError
        entries = tuple(map(_read_entry, found))
    except (ValueError, TypeError, RecursionError):
        raise _damaged("its description cannot be read") from None
    if len({entry.name for entry in entries}) != len(entries):
        raise _damaged("a name occurs twice")
    return entries


def describe(path: tuple[Any, ...], x: Any, other: Any) -> Entry:
    """Returns the entry of an array.

    Args:
      path: its path in the payload.
      x: the array, or its shape.
      other: the same array of a client that touched another number of rows.

    Raises:
      InputError: if its type has no place on the wire.
    """
    name = jax.tree_util.keystr(path)
    if x.dtype.name not in _TYPES:
        raise InputError(
            f"{name} of a payload has type {x.dtype.name}: send one of "
            f"{', '.join(_TYPES)}"
        )
    axes = zip(x.shape, other.shape, strict=True)
    return Entry(name, x.dtype.name, tuple(n if n == m else None for n, m in axes))


def _read_entry(found: Any) -> Entry:
    name, dtype, shape = found
    good = (
        isinstance(found, list)
        and isinstance(name, str)
        and dtype in _TYPES
        and isinstance(shape, list)
        and all(n is None or (type(n) is int and 0 <= n <= _MOST) for n in shape)
        and shape.count(None) <= 1
    )
    if not good:
        raise ValueError
    return Entry(name, dtype, tuple(shape))


def num_bytes(entry: Entry, num_rows: int) -> int:
    """Returns the bytes of an array.

    Args:
      entry: its description.
      num_rows: the number of touched rows.

    Example:
      >>> num_bytes(Entry("A", "int8", (None, 4)), num_rows=10)
      40
    """
    lengths: Sequence[int] = [num_rows if n is None else n for n in entry.shape]
    return math.prod(lengths) * jnp.dtype(entry.dtype).itemsize


def check_array(entry: Entry, x: np.ndarray) -> list[int]:
    """Checks that an array is as its entry describes it.

    Args:
      entry: the description.
      x: the array.

    Returns:
      The number of touched rows, if the array has one row for each of them.

    Raises:
      InputError: for another shape or type.
    """
    same = len(x.shape) == len(entry.shape) and all(
        n in (None, m) for n, m in zip(entry.shape, x.shape, strict=True)
    )
    if not same or x.dtype.name != entry.dtype:
        raise InputError(
            f"{entry.name} of the payload is {x.dtype.name}{list(x.shape)} in place of "
            f"{entry.dtype}{brief(list(entry.shape))}: make the wire format from the "
            "pipeline that made the payload"
        )
    return [m for n, m in zip(entry.shape, x.shape, strict=True) if n is None]


def _damaged(reason: str) -> InputError:
    return InputError(f"the header of a payload is damaged, {reason}: send it again")
