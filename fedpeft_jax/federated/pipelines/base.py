"""What travels between server and clients: stages that encode and decode it.

An `Upload` encodes the update of one client; a `Download` encodes what the server sends
to every client of a round. Stages chain as optax transforms do: `chain_uploads(clip,
bfloat16)` clips first, and the payload of the last stage is what is sent. Its size is
the number of bytes that a run reports.

A stage sees the gathered rows of a client, and on the wire rows are dense. A stage
therefore treats each row alike wherever it lies, and encodes a row of zeros as zeros.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax

from fedpeft_jax.core.typing import Array, Key, PyTree
from fedpeft_jax.federated.release import Figures, merge_figures
from fedpeft_jax.federated.updates import ClientUpdate


class Upload(NamedTuple):
    """How a client sends its update.

    Attributes:
      init: `(received) -> state` of one client, where `received` holds the variables
        `{'params': ..., 'rows': ...}`. The client keeps the state beside its private
        parameters; it never travels.
      encode: `(update, state, key) -> (payload, state, figures)`. The payload is a
        `ClientUpdate` whose `shared` and `rows` are what is sent. The figures are
        scalars float32[] by name; a run reports their mean over the cohort.
      decode: `(payload) -> update`, on the server.
    """

    init: Callable[[PyTree], Any]
    encode: Callable[[ClientUpdate, Any, Key], tuple[ClientUpdate, Any, Figures]]
    decode: Callable[[ClientUpdate], ClientUpdate]


class Download(NamedTuple):
    """How the server sends its variables `{'params': ..., 'rows': ...}`.

    Attributes:
      encode: `(server, key) -> payload`, once per round for all clients.
      decode: `(payload) -> received`, on the client: a tree like `server`.
    """

    encode: Callable[[PyTree, Key], PyTree]
    decode: Callable[[PyTree], PyTree]


def identity_upload() -> Upload:
    """Returns the stage that sends the update as it is, in float32."""
    return Upload(
        init=lambda received: (),
        encode=lambda update, state, key: (update, state, {}),
        decode=lambda payload: payload,
    )


def identity_download() -> Download:
    """Returns the stage that sends the server's variables as they are, in float32."""
    return Download(encode=lambda server, key: server, decode=lambda payload: payload)


def chain_uploads(*stages: Upload) -> Upload:
    """Returns an upload that encodes by the given stages in order.

    Each stage has a key of its own. Figures of the same name are an error.

    Example:
      >>> chain_uploads(identity_upload(), identity_upload()).init({})
      ((), ())
    """
    if len(stages) == 1:
        return stages[0]

    def init(received: PyTree) -> Any:
        return tuple(stage.init(received) for stage in stages)

    def encode(
        update: ClientUpdate, state: Any, key: Key
    ) -> tuple[ClientUpdate, Any, Figures]:
        states, figures = [], dict[str, Array]()
        for place, (stage, own) in enumerate(zip(stages, state, strict=True)):
            own_key = jax.random.fold_in(key, place)
            update, own, found = stage.encode(update, own, own_key)
            states.append(own)
            figures = merge_figures(figures, found)
        return update, tuple(states), figures

    def decode(payload: ClientUpdate) -> ClientUpdate:
        for stage in reversed(stages):
            payload = stage.decode(payload)
        return payload

    return Upload(init, encode, decode)


def chain_downloads(*stages: Download) -> Download:
    """Returns a download that encodes by the given stages in order."""
    if len(stages) == 1:
        return stages[0]

    def encode(server: PyTree, key: Key) -> PyTree:
        for place, stage in enumerate(stages):
            server = stage.encode(server, jax.random.fold_in(key, place))
        return server

    def decode(payload: PyTree) -> PyTree:
        for stage in reversed(stages):
            payload = stage.decode(payload)
        return payload

    return Download(encode, decode)
