"""Upload and download pipelines: stages that encode and decode what is sent.

An `Upload` encodes the update of one client; a `Download` encodes what the server sends
to every client of a round. Stages can be chained like optax transforms:
`chain_uploads(clip, bfloat16)` clips first, and the payload of the last stage is what
is sent. Its size is the number of bytes that a run reports.

In the simulation a stage receives the rows that a client gathered, whereas a real
client sends dense rows. A stage must therefore encode a row in the same way at every
position, and encode a row of zeros as zeros.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax

from fedpeft_jax.core.typing import Array, Key, PyTree
from fedpeft_jax.federated.release import Figures, merge_figures
from fedpeft_jax.federated.updates import ClientUpdate

TOUCHED_ITEMS = "which items each client touched, even if only sums were opened"
"""What a stage reveals that sends indices of rows or numbers."""


class Upload(NamedTuple):
    """How a client sends its update.

    Attributes:
      init: `(received) -> state`, the initial state of one client, where `received`
        holds the variables `{'params': ..., 'rows': ...}`. Its rows are whole tables
        [I, ...]. The client keeps the state with its private parameters, and never
        sends it.
      encode: `(update, state, key) -> (payload, state, figures)`. The payload is a
        `ClientUpdate` whose `shared` and `rows` are what is sent. The figures are
        diagnostics of the simulation, scalars float32[] by name; a run reports their
        mean over the cohort. They do not pass through the release stage, and a real
        deployment does not send them.
      decode: `(payload) -> update`, on the server.
      touched_rows: whether a client sends the rows that it touched, and not dense rows.
        The rows of the payload are then as many as those of the update, and a run
        counts them by client.
      reveals: what the payload reveals beyond a dense one, as the output says it.
    """

    init: Callable[[PyTree], Any]
    encode: Callable[[ClientUpdate, Any, Key], tuple[ClientUpdate, Any, Figures]]
    decode: Callable[[ClientUpdate], ClientUpdate]
    touched_rows: bool = False
    reveals: tuple[str, ...] = ()


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
    """Returns an upload that applies the given stages in order.

    Each stage receives its own key. Two stages may not report figures of the same name.

    Args:
      *stages: at least one stage.

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

    reveals = dict.fromkeys(text for stage in stages for text in stage.reveals)
    touched_rows = any(stage.touched_rows for stage in stages)
    return Upload(init, encode, decode, touched_rows, tuple(reveals))


def chain_downloads(*stages: Download) -> Download:
    """Returns a download that applies the given stages in order.

    Each stage receives its own key.

    Args:
      *stages: at least one stage.

    Example:
      >>> both = chain_downloads(identity_download(), identity_download())
      >>> both.decode(both.encode({"params": 2.0}, jax.random.key(0)))
      {'params': 2.0}
    """
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
