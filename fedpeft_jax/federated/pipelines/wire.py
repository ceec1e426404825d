"""Payloads as bytes: a header that describes them, and their arrays without pickle.

A *header* holds names, types and shapes. It is the same for all payloads of a phase and
is sent once. A *message* is the arrays of one payload, in the order of the header, in
C order and little endian, with nothing before, between or after them. Its length is the
number of bytes that a run counts for this payload.

`entries.py` has the format of the header.
"""

import sys
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fedpeft_jax.core.errors import InputError
from fedpeft_jax.core.roles import ROWS, SENT, SHARED, select
from fedpeft_jax.core.typing import PyTree
from fedpeft_jax.federated.pipelines.base import Download, Upload
from fedpeft_jax.federated.pipelines.checks import check_download, upload_of_rows
from fedpeft_jax.federated.pipelines.entries import (
    Entry,
    check_array,
    describe,
    num_bytes,
    pack_header,
    read_entries,
)
from fedpeft_jax.federated.updates import ClientUpdate

_BIG_ENDIAN = sys.byteorder == "big"


class WireFormat(NamedTuple):
    """How the payloads of a phase become bytes.

    Attributes:
      entries: the arrays of a payload, in order.
      structure: the structure of a payload; None for a format that `read_header` read,
        whose payloads are dictionaries of arrays by name.
    """

    entries: tuple[Entry, ...]
    structure: Any = None

    @property
    def header(self) -> bytes:
        """The description of a payload, as bytes."""
        return pack_header(self.entries)

    def num_bytes(self, num_rows: int = 0) -> int:
        """Returns the length of a message.

        Args:
          num_rows: the number of rows that the client touched.
        """
        return sum(num_bytes(entry, num_rows) for entry in self.entries)

    def encode(self, payload: PyTree) -> bytes:
        """Returns a payload as a message.

        Args:
          payload: arrays as the format describes them; a `ClientUpdate` stands for
            what is sent of it.

        Raises:
          InputError: for a payload of another structure, or other shapes or types.
        """
        payload = _sent(payload)
        if self.structure is None:
            if not isinstance(payload, Mapping) or set(payload) != self._names:
                raise InputError(
                    "the payload has other arrays than the header: send a dictionary "
                    "with the header's names"
                )
            arrays = [payload[entry.name] for entry in self.entries]
        else:
            if jax.tree.structure(payload) != self.structure:
                raise InputError(
                    "the payload has another structure than its wire format: make the "
                    "format from the pipeline that made the payload"
                )
            arrays = jax.tree.leaves(payload)
        parts, rows = [], set[int]()
        for entry, x in zip(self.entries, map(np.asarray, arrays), strict=True):
            rows.update(check_array(entry, x))
            parts.append((x.byteswap() if _BIG_ENDIAN else x).tobytes())
        if len(rows) > 1:
            raise InputError(
                f"the payload has arrays of {sorted(rows)} rows: send the same rows of "
                "all tables"
            )
        return b"".join(parts)

    def decode(self, message: bytes) -> PyTree:
        """Returns the payload of a message, with NumPy arrays.

        Args:
          message: the result of `encode`.

        Raises:
          InputError: for a message of another length than the format has.
        """
        fixed = self.num_bytes(0)
        row, rest, num_rows = self.num_bytes(1) - fixed, len(message) - fixed, 0
        if row and rest >= 0 and rest % row == 0:
            num_rows, rest = rest // row, 0
        if rest:
            by_row = f" and {row} for each row" if row else ""
            raise InputError(
                f"the message has {len(message)} bytes and its header describes {fixed}"
                f"{by_row}: read the header of the same phase"
            )
        arrays, first = [], 0
        for entry in self.entries:
            size = num_bytes(entry, num_rows)
            shape = [num_rows if n is None else n for n in entry.shape]
            x = np.frombuffer(message[first : first + size], jnp.dtype(entry.dtype))
            x = x.byteswap() if _BIG_ENDIAN else x.copy()
            arrays.append(x.reshape(shape))
            first += size
        if self.structure is None:
            names = (entry.name for entry in self.entries)
            return dict(zip(names, arrays, strict=True))
        return jax.tree.unflatten(self.structure, arrays)

    @property
    def _names(self) -> set[str]:
        return {entry.name for entry in self.entries}


def upload_format(upload: Upload, server: PyTree, num_items: int) -> WireFormat:
    """Returns the format of what a client sends.

    Args:
      upload: the upload pipeline.
      server: the server's variables `{'params': ..., 'rows': ...}`, or their shapes.
      num_items: I.

    Example:
      >>> from fedpeft_jax.federated.pipelines import identity_upload
      >>> server = {"params": {"B": jnp.zeros((2, 1))}, "rows": {}}
      >>> found = upload_format(identity_upload(), server, num_items=5)
      >>> found.entries, found.num_bytes()
      ((Entry(name="['params']['B']", dtype='float32', shape=(2, 1)),), 8)
    """
    server = select(server, SENT)
    if not upload.touched_rows:
        return wire_format(upload_of_rows(upload, server, num_items))
    one, two = (_sent(upload_of_rows(upload, server, n)) for n in (1, 2))
    named = jax.tree.leaves_with_path(one)
    pairs = zip(named, jax.tree.leaves(two), strict=True)
    entries = tuple(describe(path, x, other) for (path, x), other in pairs)
    return WireFormat(entries, jax.tree.structure(one))


def download_format(download: Download, server: PyTree) -> WireFormat:
    """Returns the format of what the server sends.

    Args:
      download: the download pipeline.
      server: the server's variables `{'params': ..., 'rows': ...}`, or their shapes.
    """
    return wire_format(check_download(download, select(server, SENT)))


def wire_format(payload: PyTree) -> WireFormat:
    """Returns the format of payloads like a given one.

    Args:
      payload: arrays, or their shapes.

    Raises:
      InputError: for an array of a type that has no place on the wire.

    Example:
      >>> found = wire_format({"w": jnp.ones(2)})
      >>> message = found.encode({"w": jnp.array([1.0, jnp.nan])})
      >>> read_header(found.header).decode(message)
      {"['w']": array([ 1., nan], dtype=float32)}
    """
    payload = _sent(payload)
    named = jax.tree.leaves_with_path(payload)
    entries = tuple(describe(path, x, x) for path, x in named)
    return WireFormat(entries, jax.tree.structure(payload))


def read_header(header: bytes) -> WireFormat:
    """Returns the format that a header describes.

    Args:
      header: the bytes of `WireFormat.header`.

    Raises:
      InputError: if the header is damaged, or was written by another version.
    """
    return WireFormat(read_entries(header))


def _sent(payload: PyTree) -> PyTree:
    if isinstance(payload, ClientUpdate):
        return {SHARED: payload.shared, ROWS: payload.rows}
    return payload
